//! Credentials on connections that others can read.

use std::net::IpAddr;

use crate::jet_stream_settings::JetStreamSettings;

/// The part of an error about credentials that would be sent in clear.
pub(crate) const EXPOSED: &str = "they would go to another host without TLS, and anybody on the way could read \
     them: expected https://, or `allow-plaintext-credentials: true` if that is meant";

/// True if `host`, as it is written in a URL, is this machine, so that nobody on a network sees
/// what is sent. Other names are not looked up, since the answer may change.
///
/// ```
/// assert!(fluent_settings::is_this_machine("localhost"));
/// assert!(fluent_settings::is_this_machine("[::1]"));
/// assert!(!fluent_settings::is_this_machine("localhost.example.com"));
/// ```
pub fn is_this_machine(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(is_loopback)
}

/// True if what is sent to `url` leaves this machine in clear.
pub(crate) fn is_exposed(url: &str) -> bool {
    let parsed = url::Url::parse(url).ok();
    let is_here = |url: &url::Url| url.host_str().is_some_and(is_this_machine);
    parsed.is_none_or(|url| matches!(url.scheme(), "http" | "nats") && !is_here(&url))
}

impl JetStreamSettings {
    /// Warnings about settings that are valid and unsafe.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let is_protected =
            self.tls.is_some() || self.servers.iter().any(|url| url.starts_with("tls://"));
        // With credentials and NKeys a client signs the server's challenge, and sends no secret.
        let is_exposed = self.servers.iter().any(|url| is_exposed(url));
        match self.password.is_some() && !is_protected && is_exposed {
            true => vec![
                "queue.password goes to another host without TLS, and anybody on the way could read it and \
                 every event: use tls:// or `queue.tls`"
                    .to_owned(),
            ],
            false => Vec::new(),
        }
    }
}
