//! The hosts that browsers may ask for.
//!
//! A foreign page can make its own name resolve to our address (DNS rebinding). Its requests are
//! then of the same origin as the page, and only the name in `Host` shows whose they are.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The names of the settings. Those of this machine are always known.
#[derive(Clone, Debug)]
pub(crate) struct Hosts(HashSet<String>);

impl Hosts {
    pub(crate) fn new(names: &[String]) -> Self {
        Self(names.iter().cloned().collect())
    }

    /// True if this is the authority of a request to us: a known name, with any port, since a
    /// tunnel has a port of its own.
    pub(crate) fn has(&self, authority: &str) -> bool {
        let Some(host) = host_of(authority) else {
            return false;
        };
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        is_this_machine(host) || self.0.contains(host)
    }
}

/// The host of `host` or `host:port`. `None` if it is neither.
fn host_of(authority: &str) -> Option<&str> {
    let behind = match authority.strip_prefix('[') {
        Some(address) => &authority[address.find(']')? + 2..],
        None => &authority[authority.find(':').unwrap_or(authority.len())..],
    };
    let host = &authority[..authority.len() - behind.len()];
    let is_port = |port: &str| {
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        is_number && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    let is_good = behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port);
    (is_good && !host.is_empty()).then_some(host)
}

fn is_this_machine(host: &str) -> bool {
    let v6 = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|it| it.is_loopback())
        || v6.is_some_and(|it| it.parse::<Ipv6Addr>().is_ok_and(|it| it.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine_and_of_the_settings_are_known_with_any_port() {
        let hosts = Hosts::new(&["console.example.com".to_owned(), "[2001:db8::1]".to_owned()]);
        for known in [
            "localhost",
            "LocalHost:8090",
            "localhost.",
            "a.localhost:1",
            "127.0.0.1:65535",
            "127.9.9.9",
            "[::1]",
            "[::1]:80",
            "console.example.com",
            "CONSOLE.example.com:443",
            "[2001:db8::1]:9",
        ] {
            assert!(hosts.has(known), "{known}");
        }
    }

    #[test]
    fn other_names_are_not() {
        let hosts = Hosts::new(&["console.example.com".to_owned()]);
        for foreign in [
            "",
            ":80",
            "evil.example.com",
            "localhost.evil.example.com",
            "notlocalhost",
            "127.0.0.1.evil.example.com",
            "evil.example.com:80@localhost",
            "localhost@evil.example.com",
            "localhost:80:80",
            "localhost:",
            "localhost:0",
            "localhost:+80",
            "localhost:65536",
            "[::1",
            "[::1]x",
            "[::2]",
            "10.0.0.1",
            "0.0.0.0",
            "sub.console.example.com",
            "console.example.com/",
            "localhost, evil.example.com",
        ] {
            assert!(!hosts.has(foreign), "{foreign}");
        }
    }
}
