//! Why a webhook was not answered, in the words of somebody who looks for the cause.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use anyhow::Context;
use reqwest::Url;

/// The reason why an attempt had no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendFailure {
    /// The name has no address.
    UnknownHost(String),
    /// Nobody listens at this address.
    Refused(String),
    /// Neither a connection nor an answer within the time.
    TimedOut(String, Duration),
    /// The TLS handshake failed, with the library's words.
    Tls(String, String),
    /// The connection ended before an answer.
    Closed(String),
    /// What answered does not speak HTTP, as a TLS port asked without TLS.
    NotHttp(String),
    /// Anything else, in the library's words.
    Other(String, String),
}

impl SendFailure {
    /// The reason behind an error of the HTTP client, which was given this much time.
    pub(crate) fn of(error: &reqwest::Error, place: &Place, limit: Duration) -> Self {
        let place = place.clone();
        let causes = causes(error);
        let is_said = |part: &str| causes.iter().any(|cause| cause.contains(part));
        let last = causes.last().cloned().unwrap_or_default();
        if error.is_timeout() {
            return Self::TimedOut(place.address, limit);
        }
        match io_kind(error) {
            Some(io::ErrorKind::ConnectionRefused) => return Self::Refused(place.address),
            Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                return Self::Closed(place.address);
            }
            _ => {}
        }
        if is_said("dns error") {
            Self::UnknownHost(place.host)
        } else if error.is_connect() && place.is_tls {
            Self::Tls(place.address, last)
        } else if is_said("invalid HTTP version") {
            Self::NotHttp(place.address)
        } else if is_said("connection closed before") || is_said("unexpected end of file") {
            Self::Closed(place.address)
        } else {
            Self::Other(place.address, last)
        }
    }
}

impl fmt::Display for SendFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownHost(host) => write!(f, "the name {host} has no address"),
            Self::Refused(address) => {
                write!(f, "connection refused at {address}: nobody listens there")
            }
            Self::TimedOut(address, limit) => {
                write!(f, "timed out after {} s at {address}", limit.as_secs())
            }
            Self::Tls(address, words) => write!(f, "TLS failed at {address}: {}", of_tls(words)),
            Self::Closed(address) => {
                write!(
                    f,
                    "the connection to {address} was closed without an answer"
                )
            }
            Self::NotHttp(address) => {
                write!(f, "{address} does not speak HTTP: is it https://?")
            }
            Self::Other(address, words) => write!(f, "asking {address} failed: {words}"),
        }
    }
}

/// Where requests go.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    host: String,
    address: String,
    is_tls: bool,
}

impl Place {
    /// Reads a URL of `http` or `https`.
    pub(crate) fn of(url: &str) -> anyhow::Result<Self> {
        let parsed = Url::parse(url).ok();
        let known = parsed.filter(|url| matches!(url.scheme(), "http" | "https"));
        let read = known.and_then(|url| {
            let host = url.host_str()?.to_owned();
            Some(Self {
                address: format!("{host}:{}", url.port_or_known_default()?),
                host,
                is_tls: url.scheme() == "https",
            })
        });
        read.with_context(|| {
            format!(
                "{url:?} is not where a webhook can go: expected an address as \
                 http://127.0.0.1:8080/api/v1/fluent-connect/webhook"
            )
        })
    }
}

/// What to look at, where the library's words do not say it.
fn of_tls(words: &str) -> String {
    let hint = if words.contains("UnknownIssuer") {
        "its certificate was not made by an authority that is trusted here; name one with --ca"
    } else if words.contains("InvalidContentType") {
        "it does not speak TLS: is it http://?"
    } else if words.contains("NotValidForName") || words.contains("not valid for name") {
        "its certificate is for another name"
    } else if words.contains("Expired") || words.contains("expired") {
        "its certificate has expired"
    } else if words.contains("CaUsedAsEndEntity") {
        "its certificate is an authority's, not a server's: make it with basicConstraints=CA:FALSE"
    } else {
        return words.to_owned();
    };
    hint.to_owned()
}

/// The error's words and those of all behind it, the innermost last.
fn causes(error: &reqwest::Error) -> Vec<String> {
    chain(error).map(ToString::to_string).collect()
}

fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    chain(error)
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .map(io::Error::kind)
        .last()
}

fn chain(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    std::iter::successors(Some(first), |error| (*error).source())
}
