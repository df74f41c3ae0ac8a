use std::path::PathBuf;

use dispatch_kit::SecretFile;
use schemars::JsonSchema;
use serde::Deserialize;

/// The route's `email:` table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmailSettings {
    /// Who takes the mails.
    pub(crate) server: ServerSettings,
    /// Who they are from, such as `Shop <shop@example.com>`.
    pub(crate) from: String,
    /// A template over `event` that makes one address, or a few with commas.
    pub(crate) to: String,
    /// A template over `event` that makes one line.
    pub(crate) subject: String,
    /// A file with a template over `event`: the mail as text.
    pub(crate) text: PathBuf,
    /// The same as HTML, beside the text.
    pub(crate) html: Option<PathBuf>,
}

/// `server:`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerSettings {
    pub(crate) host: String,
    /// Left out, 587, 465 or 25, as `security` says.
    pub(crate) port: Option<u16>,
    /// How the way there is protected.
    #[serde(default)]
    pub(crate) security: Security,
    pub(crate) user: Option<String>,
    /// Read at the start.
    pub(crate) password: Option<SecretFile>,
    /// The only authority to trust, as PEM.
    pub(crate) ca: Option<PathBuf>,
}

/// How the way to a mail server is protected.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Security {
    /// TLS after a first word in the open; required.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// Not at all: for a server on this machine.
    None,
}
