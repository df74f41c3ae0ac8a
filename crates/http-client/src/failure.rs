//! Why a request had no answer, in the words of somebody who looks for the cause.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use http::Uri;

use crate::addresses::AddressError;

/// Where a request goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    host: String,
    /// Host and port.
    address: String,
    is_tls: bool,
}

impl Target {
    /// The target of a URL; `None` if it has no host, or is neither of `http` nor of `https`.
    pub fn of(uri: &Uri) -> Option<Self> {
        let is_tls = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = uri.host()?.to_owned();
        let usual = if is_tls { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(usual);
        Some(Self {
            address: format!("{host}:{port}"),
            host,
            is_tls,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// The reason why a request had no answer. It names the host and the port, and nothing else of the
/// URL, which may hold a secret.
///
/// ```
/// use fluent_http_client::{SendFailure, Target};
///
/// let target = Target::of(&"http://127.0.0.1:9/hook".parse().unwrap()).unwrap();
/// let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
/// assert_eq!(
///     SendFailure::of(&refused, true, &target).to_string(),
///     "connection refused at 127.0.0.1:9: nobody listens there"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendFailure {
    /// The name has no address.
    #[error("the name {0} has no address")]
    UnknownHost(String),
    /// Nobody listens at this address.
    #[error("connection refused at {0}: nobody listens there")]
    Refused(String),
    /// No way leads to this address.
    #[error("no way leads to {0}: the network or the host can't be reached")]
    Unreachable(String),
    /// No connection, or no answer, within the time.
    #[error("timed out after {} s at {_0}", _1.as_secs())]
    TimedOut(String, Duration),
    /// The TLS handshake failed, with what to look at.
    #[error("TLS failed at {0}: {1}")]
    Tls(String, String),
    /// The connection ended before an answer.
    #[error("the connection to {0} was closed without an answer")]
    Closed(String),
    /// What answered does not speak HTTP, as a TLS port asked without TLS.
    #[error("what {0} answered is not HTTP: does it want https://?")]
    NotHttp(String),
    /// The address is one that is not connected to.
    #[error("{0} is not asked: {1}")]
    Forbidden(String, AddressError),
    /// Anything else, in the library's words.
    #[error("asking {0} failed: {1}")]
    Other(String, String),
}

impl SendFailure {
    /// The reason behind an error of an HTTP library. `is_connecting` if no connection was made.
    pub fn of(error: &(dyn Error + 'static), is_connecting: bool, target: &Target) -> Self {
        let address = target.address.clone();
        if let Some(forbidden) = find::<AddressError>(error) {
            return Self::Forbidden(address, *forbidden);
        }
        let causes: Vec<String> = chain(error).map(ToString::to_string).collect();
        let is_said = |part: &str| causes.iter().any(|cause| cause.contains(part));
        match io_kind(error) {
            Some(io::ErrorKind::ConnectionRefused) => return Self::Refused(address),
            Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                return Self::Closed(address);
            }
            Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
                return Self::Unreachable(address);
            }
            _ => {}
        }
        let last = || causes.last().cloned().unwrap_or_default();
        if is_said("dns error") {
            Self::UnknownHost(target.host.clone())
        } else if is_connecting && target.is_tls {
            Self::Tls(address, of_tls(&last()))
        } else if is_said("invalid HTTP version") || is_said("invalid HTTP status-code") {
            Self::NotHttp(address)
        } else if is_said("connection closed before") || is_said("unexpected end of file") {
            Self::Closed(address)
        } else {
            Self::Other(address, last())
        }
    }
}

/// What to look at, where the library's words do not say it.
fn of_tls(words: &str) -> String {
    let says = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    let hint = if says(&["UnknownIssuer"]) {
        "its certificate is not trusted: no authority that is trusted here made it"
    } else if says(&["InvalidContentType"]) {
        "it does not speak TLS: is it http://?"
    } else if says(&["NotValidForName", "not valid for name"]) {
        "its certificate is for another name"
    } else if says(&["Expired", "expired"]) {
        "its certificate has expired"
    } else if says(&["NotValidYet", "not valid yet"]) {
        "its certificate is not valid yet: is the clock right?"
    } else if says(&["CaUsedAsEndEntity"]) {
        "its certificate is an authority's, not a server's: make it with basicConstraints=CA:FALSE"
    } else if says(&["CertificateRequired", "HandshakeFailure", "BadCertificate"]) {
        "it refused us: does it want a client certificate?"
    } else if says(&["unexpected EOF", "unexpected end of file"]) {
        "it ended the handshake"
    } else {
        return words.to_owned();
    };
    hint.to_owned()
}

fn io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    let kinds = chain(error).filter_map(|error| error.downcast_ref::<io::Error>());
    kinds.map(io::Error::kind).last()
}

fn find<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    chain(error).find_map(|error| error.downcast_ref())
}

fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
