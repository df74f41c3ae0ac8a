//! The route's `grpc:` table.

use std::path::PathBuf;
use std::time::Duration;

use dispatch::{BoxError, OpenContext};
use dispatch_kit::SecretFile;
use grpc::{Target, TlsTarget};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// Longest wait for a handler: an attempt takes one of the route's permits.
const MAX_TIMEOUT: Duration = Duration::from_mins(5);

/// Most endpoints of a route.
const MAX_ENDPOINTS: usize = 64;

/// The route's `grpc:` table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GrpcSettings {
    /// Who handles the events: addresses such as `https://handlers:50061`. Each
    /// event goes to the least busy of all that their names stand for.
    #[serde(deserialize_with = "endpoints")]
    pub(crate) endpoints: Vec<String>,
    /// How long one attempt may take, as `10s`; at most 5m.
    #[serde(default, deserialize_with = "timeout")]
    #[schemars(
        with = "Option<String>",
        extend("title" = "a duration", "examples" = ["10s"])
    )]
    pub(crate) timeout: Option<Duration>,
    /// A secret that is sent as `authorization: Bearer`.
    pub(crate) token: Option<SecretFile>,
    /// Certificate authority and client certificate for `https://`.
    pub(crate) tls: Option<TlsSettings>,
}

/// `tls:`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct TlsSettings {
    /// PEM: the handlers' certificate authority, instead of the system's.
    ca: Option<PathBuf>,
    /// PEM: our own certificate, with `key`.
    certificate: Option<PathBuf>,
    /// PEM: its private key.
    key: Option<PathBuf>,
    /// The name in their certificate, where it is not the one in the address.
    name: Option<String>,
}

impl GrpcSettings {
    pub(crate) fn targets(&self, cx: &OpenContext) -> Result<Vec<Target>, BoxError> {
        let tls = self.tls.as_ref().map(|tls| tls.resolved(cx)).transpose()?;
        let target = |address: &String| {
            let target = Target::new(address, tls.clone())?;
            match self.token.is_some() && target.is_exposed() {
                true => Err(BoxError::from(format!(
                    "{address}: expected https://, or anybody on the way could read the token"
                ))),
                false => Ok(target),
            }
        };
        self.endpoints.iter().map(target).collect()
    }
}

impl TlsSettings {
    fn resolved(&self, cx: &OpenContext) -> Result<TlsTarget, BoxError> {
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((cx.resolve(certificate), cx.resolve(key))),
            (None, None) => None,
            _ => return Err("grpc.tls: expected `certificate` and `key`, or neither".into()),
        };
        let ca = self.ca.as_ref().map(|ca| cx.resolve(ca));
        Ok(TlsTarget {
            ca,
            identity,
            name: self.name.clone(),
        })
    }
}

fn endpoints<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let endpoints: Vec<String> = Vec::deserialize(from)?;
    if endpoints.is_empty() || endpoints.len() > MAX_ENDPOINTS {
        return Err(D::Error::custom(
            "expected 1 to 64 addresses such as https://handlers:50061",
        ));
    }
    for address in &endpoints {
        Target::new(address, None).map_err(D::Error::custom)?;
    }
    Ok(endpoints)
}

fn timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let read = humantime::parse_duration(&text).ok();
    let fits = read.filter(|timeout| !timeout.is_zero() && *timeout <= MAX_TIMEOUT);
    fits.map(Some)
        .ok_or_else(|| D::Error::custom("expected a duration above 0, such as 10s, and at most 5m"))
}
