use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use event_model::StoredVerifier;
use queue::{HistoryIndex, REMOVED_AFTER};

/// Which servers, who we are there, and what the streams are to be.
#[derive(Clone, Debug)]
pub struct Options {
    /// `nats://host:port` or `tls://host:port`; more than one of a cluster.
    pub servers: Vec<String>,
    /// What this connection is called on the server.
    pub name: String,
    /// Who we are.
    pub identity: Identity,
    /// How the connection is protected.
    pub tls: Tls,
    /// Begins the subjects on which answers come; the server's permissions name it.
    pub inbox: String,
    /// Learn of the cluster's other servers from those that are named.
    pub discover: bool,
    /// What the streams are to be.
    pub layout: Layout,
    /// Settled events older than this go. Not less than the dedup window: the
    /// server knows the ids of stored messages only.
    pub retention_age: Duration,
    /// The least age at which a settled event goes where its stream is crowded: younger
    /// ones a spool may have to read back.
    pub crowded_age: Duration,
    /// How often the janitor looks.
    pub janitor_every: Duration,
    /// Where events and attempts are looked up. Without one, streams are read through.
    pub index: Option<Arc<dyn HistoryIndex>>,
    /// Verifies again what is taken out of the streams. Without one, whoever can write there
    /// is believed.
    pub verifier: Option<Arc<dyn StoredVerifier>>,
    /// How soon a delivery is looked at again whose key is not known here; longer for one that
    /// has waited long.
    pub key_retry: Duration,
}

/// What the streams are to be: what `cluster init` makes and `check` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// On how many servers each stream is kept: 1, 3 or 5.
    pub replicas: usize,
    /// Most bytes of events; full, new ones are refused.
    pub bytes: u64,
    /// How long an id is known.
    pub dedup_window: Duration,
    /// How long attempts are known, at most: they go sooner where they take a tenth of
    /// the bytes that events may.
    pub history: Duration,
}

/// Who we are to the server.
#[derive(Clone, Debug, Default)]
pub enum Identity {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// A file with a JWT and its key.
    Credentials(PathBuf),
    /// A file with an NKey's seed.
    Nkey(PathBuf),
    /// A name and a file with the password.
    Password(String, PathBuf),
}

/// How the connection is protected.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Refuse a server without TLS.
    pub required: bool,
    /// Who may vouch for the servers, instead of the system's authorities.
    pub ca: Option<PathBuf>,
    /// Our own certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Options {
    /// These servers, without TLS, one replica.
    pub fn new(servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            name: "fluent-webhooks".to_owned(),
            identity: Identity::default(),
            tls: Tls::default(),
            inbox: "_INBOX".to_owned(),
            discover: true,
            layout: Layout {
                replicas: 1,
                bytes: 10 << 30,
                dedup_window: Duration::from_hours(28),
                history: Duration::from_hours(7 * 24),
            },
            retention_age: Duration::from_hours(7 * 24),
            crowded_age: REMOVED_AFTER,
            janitor_every: Duration::from_secs(30),
            index: None,
            verifier: None,
            key_retry: Duration::from_secs(15),
        }
    }
}
