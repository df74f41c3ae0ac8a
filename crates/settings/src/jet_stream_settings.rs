//! `fluent-connect.queue` of the kind `jetstream`: servers, login, limits and verification.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use event_model::StoredVerifier;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::SettingsError;
use crate::queue_settings::{PATH, RetentionSettings};
use crate::tree::SettingsTree;
use crate::values::{ByteSize, DurationText};

/// Largest body: with its headers and a batch's, it must fit into a stream's message.
const MAX_BODY: u64 = 2 << 20;

/// The usual dedup window. A known id takes about 0.29 KB of memory in every server.
const DEDUP_WINDOW: Duration = Duration::from_hours(28);

/// `fluent-connect.queue` of the kind `jetstream`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct JetStreamSettings {
    /// `jetstream`: a cluster of NATS servers, 2.12 or newer.
    #[schemars(extend("const" = "jetstream"))]
    pub(crate) kind: String,
    /// URLs of the servers: `nats://host:4222`, or `tls://host:4222`.
    pub servers: Vec<String>,
    /// A file with a JWT and its key.
    pub credentials: Option<FileSettings>,
    /// A file with an NKey's seed.
    pub nkey: Option<FileSettings>,
    /// The user's name, with `password`.
    pub user: Option<String>,
    /// A file with the password.
    pub password: Option<FileSettings>,
    /// TLS for the connection.
    pub tls: Option<NatsTlsSettings>,
    /// Prefix of the subjects on which NATS answers come; the user's permissions name it.
    pub inbox_prefix: String,
    /// Whether to learn of the cluster's other servers from those in `servers`.
    pub discover_servers: bool,
    /// Number of servers that store each stream: 1, 3 or 5.
    pub replicas: u8,
    /// How long ids of events are known, so that a webhook that is sent again is no new event;
    /// at least 27h.
    #[serde(with = "crate::values::duration")]
    #[schemars(with = "DurationText")]
    pub dedup_window: Duration,
    /// How long settled events are kept: no shorter than the dedup window.
    pub retention: RetentionSettings,
    /// A file on this machine in which commands keep an index of events and attempts, so that
    /// `events show` finds them. It is created when it is missing, and may be removed.
    pub index: Option<PathBuf>,
    /// Whether dispatchers check the signature of each stored event again before they deliver
    /// it. They need the gateways' keys in their settings for it.
    pub reverify: bool,
    /// The verifier of stored events, in a process that delivers.
    #[serde(skip)]
    #[schemars(skip)]
    pub verifier: Option<Arc<dyn StoredVerifier>>,
}

/// A secret, or a certificate, in a file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// Its path, relative to the settings.
    pub file: PathBuf,
}

/// `fluent-connect.queue.tls`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct NatsTlsSettings {
    /// PEM: the certificate authority of the servers, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate, with `key`.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl Default for JetStreamSettings {
    fn default() -> Self {
        Self {
            kind: "jetstream".to_owned(),
            servers: Vec::new(),
            credentials: None,
            nkey: None,
            user: None,
            password: None,
            tls: None,
            inbox_prefix: "_INBOX".to_owned(),
            discover_servers: true,
            replicas: 3,
            dedup_window: DEDUP_WINDOW,
            retention: RetentionSettings::default(),
            index: None,
            reverify: true,
            verifier: None,
        }
    }
}

impl SettingsTree {
    pub(crate) fn jet_stream(&self) -> Result<JetStreamSettings, SettingsError> {
        let mut queue: JetStreamSettings = self.section(&PATH)?;
        self.check_kept(queue.dedup_window, queue.retention)?;
        if let Some((key, why)) = problem(&queue) {
            return Err(self.invalid(&[PATH[0], PATH[1], key], why));
        }
        const LIMIT: [&str; 3] = ["fluent-connect", "webhook", "body-limit"];
        let limit: Option<ByteSize> = self.read(&LIMIT, &self.value_at(&LIMIT))?;
        if limit.is_some_and(|limit| limit.0 > MAX_BODY) {
            return Err(self.invalid(
                &LIMIT,
                "expected 2MiB or less: the streams take no larger events",
            ));
        }
        let folder = self.folder();
        let files = [&mut queue.credentials, &mut queue.nkey, &mut queue.password];
        files
            .into_iter()
            .flatten()
            .for_each(|file| file.file = folder.join(&file.file));
        queue.index = queue.index.map(|index| folder.join(index));
        if let Some(tls) = &mut queue.tls {
            let files = [&mut tls.ca, &mut tls.certificate, &mut tls.key];
            files
                .into_iter()
                .flatten()
                .for_each(|file| *file = folder.join(&*file));
        }
        Ok(queue)
    }
}

fn problem(queue: &JetStreamSettings) -> Option<(&'static str, &'static str)> {
    let is_url = |server: &String| {
        ["nats://", "tls://"]
            .iter()
            .any(|scheme| server.starts_with(scheme))
            && !server.contains('@')
    };
    let identities = [
        queue.credentials.is_some(),
        queue.nkey.is_some(),
        queue.user.is_some(),
    ]
    .iter()
    .filter(|given| **given)
    .count();
    let pair = |tls: &NatsTlsSettings| tls.certificate.is_some() == tls.key.is_some();
    let is_inbox = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    [
        (
            queue.servers.is_empty() || !queue.servers.iter().all(is_url),
            "servers",
            "expected a list of URLs such as nats://host:4222 or tls://host:4222, without a password in them",
        ),
        (![1, 3, 5].contains(&queue.replicas), "replicas", "expected 1, 3 or 5"),
        (identities > 1, "credentials", "expected one of credentials, nkey and user, not more"),
        (queue.user.is_some() != queue.password.is_some(), "user", "expected user and password together"),
        (!queue.tls.as_ref().is_none_or(pair), "tls", "expected certificate and key together"),
        (
            queue.inbox_prefix.is_empty() || !queue.inbox_prefix.chars().all(is_inbox),
            "inbox-prefix",
            "expected letters, digits, `_` and `-`",
        ),
        (
            queue.retention.age < queue.dedup_window,
            "retention",
            "its age must not be less than the dedup-window: the servers know the ids of stored events only",
        ),
    ]
    .into_iter()
    .find(|(is_wrong, ..)| *is_wrong)
    .map(|(_, key, why)| (key, why))
}
