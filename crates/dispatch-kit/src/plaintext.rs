//! Credentials that would travel in clear.

use std::net::IpAddr;

/// Error of a credential that would be sent to another host in clear.
#[derive(Debug, thiserror::Error)]
#[error(
    "{credential} would go to another host without TLS, and anybody on the way could read it: \
     expected {expected}, or `allow-plaintext-credentials: true` if that is meant"
)]
pub struct PlaintextCredential {
    credential: &'static str,
    expected: &'static str,
}

impl PlaintextCredential {
    /// Makes the error; `credential` is the setting that names the credential, `expected` what
    /// would protect it.
    pub fn new(credential: &'static str, expected: &'static str) -> Self {
        Self {
            credential,
            expected,
        }
    }
}

/// Whether `host`, as it is written in a URL or in settings, is this machine: what goes
/// there passes nobody. Other names are not looked up, as their answer may change.
///
/// ```
/// assert!(fluent_dispatch_kit::is_this_machine("localhost"));
/// assert!(fluent_dispatch_kit::is_this_machine("127.0.0.9"));
/// assert!(fluent_dispatch_kit::is_this_machine("[::1]"));
/// assert!(!fluent_dispatch_kit::is_this_machine("localhost.example.com"));
/// assert!(!fluent_dispatch_kit::is_this_machine("10.0.0.1"));
/// ```
pub fn is_this_machine(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}
