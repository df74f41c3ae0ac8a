//! The route's `http:` table.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use dispatch_kit::{PlaintextCredential, SecretFile, is_this_machine};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::Value;
use url::Url;

use http_client::addresses::check_literal;

/// Longest wait for an endpoint: an attempt takes one of the route's permits.
const MAX_TIMEOUT: Duration = Duration::from_mins(5);

/// The route's `http:` table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpSettings {
    /// The endpoint's URL: https or http, without user and password.
    pub(crate) url: Target,
    /// How long one attempt may take, as `10s`; at most 5m.
    #[serde(default)]
    pub(crate) timeout: Timeout,
    /// Whether a name in the URL may resolve to a private or loopback address,
    /// as names inside a cluster do. An address written out is allowed anyway;
    /// link-local and metadata addresses never are.
    #[serde(default)]
    pub(crate) allow_private: bool,
    /// Whether a login or a header from a secret file may go to another host over
    /// `http://`, where anybody on the way can read it.
    #[serde(default)]
    pub(crate) allow_plaintext_credentials: bool,
    /// The HTTP method.
    #[serde(default)]
    pub(crate) method: MethodSettings,
    /// The format of the body.
    #[serde(default)]
    pub(crate) format: Format,
    /// A file with a template over `event` that makes the body, instead of the event itself.
    pub(crate) template: Option<TemplateSettings>,
    /// More headers: each a template over `event`, or a secret in a file.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, HeaderSettings>,
    /// The login at the endpoint.
    pub(crate) auth: Option<AuthSettings>,
    /// Secrets to sign with by the Standard Webhooks scheme, the newest first; each
    /// `whsec_...` or base64. While there are two, both signatures are sent.
    #[serde(default)]
    pub(crate) sign: Vec<SecretFile>,
    /// Certificate authority and client certificate for `https://`.
    #[serde(default)]
    pub(crate) tls: TlsSettings,
    /// What response statuses mean, where it differs from the default.
    #[serde(default)]
    pub(crate) statuses: StatusSettings,
    /// How many bytes of a failure's response body are kept in the history; at most 400. They may
    /// hold personal data, and are never logged.
    #[serde(default)]
    pub(crate) error_body_bytes: usize,
}

impl HttpSettings {
    /// Whether any request goes over TLS.
    pub(crate) fn needs_tls(&self) -> bool {
        let token_url = match &self.auth {
            Some(AuthSettings::Oauth2 { token_url, .. }) => Some(token_url),
            _ => None,
        };
        [Some(&self.url), token_url]
            .into_iter()
            .flatten()
            .any(|target| target.0.scheme() == "https")
    }

    /// Fails if a secret would go to another host in clear, unless the settings allow it.
    pub(crate) fn ensure_protected_credentials(&self) -> Result<(), PlaintextCredential> {
        let is_oauth2 = |auth: &AuthSettings| match auth {
            AuthSettings::Oauth2 { token_url, .. } => token_url.is_exposed(),
            AuthSettings::Bearer(_) | AuthSettings::Basic { .. } => false,
        };
        let is_secret = |header: &HeaderSettings| matches!(header, HeaderSettings::Secret(_));
        let is_exposed = self.url.is_exposed();
        let credential = [
            (
                self.auth.as_ref().is_some_and(is_oauth2),
                "http.auth.oauth2: the client's secret",
            ),
            (is_exposed && self.auth.is_some(), "http.auth: the login"),
            (
                is_exposed && self.headers.values().any(is_secret),
                "http.headers: a secret",
            ),
        ];
        match credential.into_iter().find(|(is_sent, _)| *is_sent) {
            Some((_, what)) if !self.allow_plaintext_credentials => {
                Err(PlaintextCredential::new(what, "https://"))
            }
            _ => Ok(()),
        }
    }
}

/// A method with a body.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
pub(crate) enum MethodSettings {
    #[default]
    #[serde(rename = "POST")]
    Post,
    #[serde(rename = "PUT")]
    Put,
    #[serde(rename = "PATCH")]
    Patch,
}

/// The format of the body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// The signed bytes, with the CloudEvent's attributes as headers.
    #[default]
    Binary,
    /// A CloudEvent in JSON, with the event as its `data`.
    Structured,
    /// The signed bytes, and no headers of CloudEvents.
    Bare,
}

/// `template:`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct TemplateSettings {
    /// In the syntax of Jinja; in JSON, values are written as JSON.
    pub(crate) file: PathBuf,
    /// What it makes.
    #[serde(default = "json")]
    pub(crate) content_type: String,
}

fn json() -> String {
    "application/json".to_owned()
}

/// A template, or a secret.
#[derive(Clone, Debug, JsonSchema)]
#[serde(untagged)]
pub(crate) enum HeaderSettings {
    Template(String),
    Secret(SecretFile),
}

impl<'de> Deserialize<'de> for HeaderSettings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from)? {
            Value::String(text) => Ok(Self::Template(text)),
            // As it is written: settings have no other numbers.
            Value::Number(number) => Ok(Self::Template(number.to_string())),
            Value::Bool(value) => Ok(Self::Template(value.to_string())),
            table @ Value::Object(_) => SecretFile::deserialize(table)
                .map(Self::Secret)
                .map_err(Error::custom),
            _ => Err(Error::custom(
                "expected a text, or { file: path } of a secret",
            )),
        }
    }
}

/// `auth:`, one of these.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) enum AuthSettings {
    /// `Authorization: Bearer`.
    Bearer(SecretFile),
    /// `Authorization: Basic`.
    Basic { user: String, password: SecretFile },
    /// OAuth 2.0 client credentials.
    #[serde(rename_all = "kebab-case")]
    Oauth2 {
        token_url: Target,
        client_id: String,
        client_secret: SecretFile,
        scope: Option<String>,
    },
}

/// `tls:`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TlsSettings {
    /// The only authorities to trust, as PEM; left out, those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// Our certificate, as PEM.
    pub(crate) certificate: Option<PathBuf>,
    /// Its key, as PEM.
    pub(crate) key: Option<PathBuf>,
}

/// `statuses:`. What is named nowhere means what it usually does.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StatusSettings {
    /// Delivered: the endpoint has the event.
    pub(crate) done: Vec<u16>,
    /// Failed, and tried again.
    pub(crate) retry: Vec<u16>,
    /// Failed for good: a dead letter.
    pub(crate) permanent: Vec<u16>,
}

/// An endpoint's address.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(transparent)]
pub(crate) struct Target(#[schemars(with = "String")] Url);

impl Target {
    /// Whether anybody on the way could read what is sent there.
    fn is_exposed(&self) -> bool {
        self.0.scheme() == "http" && !self.0.host_str().is_some_and(is_this_machine)
    }

    pub(crate) fn into_inner(self) -> Url {
        self.0
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // A URL may hold a secret: an error must not repeat it.
        let text = String::deserialize(from)?;
        let url = Url::parse(&text).map_err(|error| {
            Error::custom(format!("not a URL ({error}): expected https://host/path"))
        })?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(Error::custom(
                "expected a URL that begins with https:// or http://",
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::custom(
                "a URL with a user or a password in it would end up in logs: expected none",
            ));
        }
        check_literal(&url).map_err(Error::custom)?;
        Ok(Self(url))
    }
}

/// A bounded wait.
#[derive(Clone, Copy, Debug, JsonSchema)]
#[schemars(transparent, extend("title" = "a duration", "examples" = ["10s"]))]
pub(crate) struct Timeout(#[schemars(with = "String")] Duration);

impl Timeout {
    pub(crate) fn into_inner(self) -> Duration {
        self.0
    }
}

impl Default for Timeout {
    fn default() -> Self {
        Self(Duration::from_secs(10))
    }
}

impl<'de> Deserialize<'de> for Timeout {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        match humantime::parse_duration(&text) {
            Ok(timeout) if !timeout.is_zero() && timeout <= MAX_TIMEOUT => Ok(Self(timeout)),
            _ => Err(Error::custom(
                "expected a duration above 0, such as 10s, and at most 5m",
            )),
        }
    }
}
