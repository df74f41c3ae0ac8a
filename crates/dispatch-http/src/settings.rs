use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use url::Url;

use crate::addresses::check_literal;

/// Longest wait for an endpoint: an attempt holds one of the route's places.
const MAX_TIMEOUT: Duration = Duration::from_mins(5);

/// The route's `http:` table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpSettings {
    /// Where to post: http or https, without user and password.
    pub(crate) url: Target,
    /// How long one attempt may take, as `10s`; at most 5m.
    #[serde(default)]
    pub(crate) timeout: Timeout,
    /// Whether a name in the URL may resolve to a private or loopback address,
    /// as names inside a cluster do. An address written out is allowed anyway;
    /// link-local and metadata addresses never are.
    #[serde(default)]
    pub(crate) allow_private: bool,
}

/// An endpoint's address.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(transparent)]
pub(crate) struct Target(#[schemars(with = "String")] Url);

impl Target {
    pub(crate) fn into_inner(self) -> Url {
        self.0
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // A URL may hold a secret: what was written is not repeated.
        let text = String::deserialize(from)?;
        let url = Url::parse(&text)
            .map_err(|error| Error::custom(format!("not a URL ({error}): expected https://host/path")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(Error::custom("expected a URL that begins with https:// or http://"));
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
#[schemars(transparent)]
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
            _ => Err(Error::custom("expected a time such as 10s, at most 5m")),
        }
    }
}
