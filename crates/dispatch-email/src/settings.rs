//! The route's `email:` table.

use std::fmt;
use std::path::PathBuf;

use dispatch_kit::{PlaintextCredential, SecretFile, is_this_machine};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

/// The route's `email:` table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmailSettings {
    /// Who takes the mails.
    pub(crate) server: ServerSettings,
    /// Who they are from, such as `Shop <shop@example.com>`.
    pub(crate) from: String,
    /// Templates over `event`, each of which makes one address: a list, or a text with
    /// commas between them. At most 10.
    pub(crate) to: ToSettings,
    /// A template over `event` that makes one line.
    pub(crate) subject: String,
    /// A file with a template over `event`: the mail as text.
    pub(crate) text: PathBuf,
    /// The same as HTML, beside the text.
    pub(crate) html: Option<PathBuf>,
}

/// `to:`.
#[derive(Clone, Debug, JsonSchema)]
#[serde(untagged)]
pub(crate) enum ToSettings {
    One(String),
    Several(Vec<String>),
}

impl<'de> Deserialize<'de> for ToSettings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = ToSettings;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address, or a list of addresses")
            }

            fn visit_str<E: Error>(self, address: &str) -> Result<Self::Value, E> {
                Ok(ToSettings::One(address.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, addresses: A) -> Result<Self::Value, A::Error> {
                Deserialize::deserialize(SeqAccessDeserializer::new(addresses))
                    .map(ToSettings::Several)
            }
        }

        from.deserialize_any(Written)
    }
}

/// `server:`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
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
    /// Whether the password may go to another host with `security: none`, where anybody
    /// on the way can read it.
    #[serde(default)]
    pub(crate) allow_plaintext_credentials: bool,
    /// The only authority to trust, as PEM.
    pub(crate) ca: Option<PathBuf>,
}

impl ServerSettings {
    /// Fails if a password would go to another host in clear, unless the settings allow it.
    pub(crate) fn ensure_protected_credentials(&self) -> Result<(), PlaintextCredential> {
        let is_exposed = matches!(self.security, Security::None) && !is_this_machine(&self.host);
        let is_sent = self.user.is_some() || self.password.is_some();
        match is_exposed && is_sent && !self.allow_plaintext_credentials {
            true => {
                let what = "email.server: the password";
                Err(PlaintextCredential::new(
                    what,
                    "`security: starttls` or `tls`",
                ))
            }
            false => Ok(()),
        }
    }
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
