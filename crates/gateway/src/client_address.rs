//! The client's address of a request that came through proxies.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use axum::http::header::FORWARDED;
use settings::{AddressFrom, TrustedProxies};

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The client's address: the right-most that is no trusted proxy's. Whatever is left of it
/// was written by somebody whom we do not know.
pub(crate) fn client_address(
    peer: IpAddr,
    headers: &HeaderMap,
    proxies: &TrustedProxies,
) -> IpAddr {
    if !proxies.contains(peer) {
        return peer;
    }
    let hops: Vec<&str> = match proxies.address_from() {
        AddressFrom::XForwardedFor => values(headers, X_FORWARDED_FOR)
            .flat_map(|text| text.split(','))
            .collect(),
        AddressFrom::Forwarded => values(headers, FORWARDED.as_str())
            .flat_map(forwarded_for)
            .collect(),
        // The connection's address is already the client's.
        AddressFrom::ProxyProtocol => Vec::new(),
    };
    let mut client = peer;
    for hop in hops.iter().rev() {
        // An entry that can't be read could hide anybody, so the request counts for the proxy
        // that passed it on.
        let Some(address) = address(hop.trim()) else {
            return client;
        };
        client = address;
        if !proxies.contains(address) {
            break;
        }
    }
    client
}

/// A header that is there several times is one list.
fn values<'h>(headers: &'h HeaderMap, name: &'h str) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(name)
        .iter()
        .map(|value| value.to_str().unwrap_or_default())
}

/// The addresses in `for=192.0.2.60;proto=http, for="[2001:db8::1]:4711"`. A hop that names none
/// is an empty text.
fn forwarded_for(text: &str) -> Vec<&str> {
    let Some(hops) = split_outside_quotes(text, ',') else {
        return vec![""];
    };
    hops.into_iter()
        .map(|hop| address_of_hop(hop).unwrap_or_default())
        .collect()
}

/// The address that a hop names, if it names exactly one and can be read in one way only.
fn address_of_hop(hop: &str) -> Option<&str> {
    let pairs = split_outside_quotes(hop, ';')?
        .into_iter()
        .filter_map(|pair| pair.trim().split_once('='));
    let mut named = pairs.filter(|(name, _)| name.trim_end().eq_ignore_ascii_case("for"));
    let ((_, value), None) = (named.next()?, named.next()) else {
        return None;
    };
    let quoted = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    Some(quoted.unwrap_or(value))
}

/// The parts of a list, some of which may be in quotes (RFC 7239, 4): `host` is written by the
/// sender and may contain anything. `None` if a quote does not end.
fn split_outside_quotes(text: &str, separator: char) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    let mut begin = 0;
    let mut is_quoted = false;
    let mut is_escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ if letter == separator && !is_quoted => {
                parts.push(&text[begin..at]);
                begin = at + separator.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    (!is_quoted).then_some(parts)
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = || {
        text.trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .ok()
    };
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare()
        .or_else(with_port)
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, from: AddressFrom, lines: &[&str]) -> String {
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap());
        let proxies = TrustedProxies::new(networks.to_vec(), from);
        let name = if from == AddressFrom::Forwarded {
            "forwarded"
        } else {
            X_FORWARDED_FOR
        };
        let name = axum::http::HeaderName::from_static(name);
        let headers = lines
            .iter()
            .map(|line| (name.clone(), line.parse().unwrap()))
            .collect();
        client_address(peer.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn the_right_most_address_that_is_no_proxy_counts() {
        let from = AddressFrom::XForwardedFor;
        for (peer, lines, expected) in [
            ("192.0.2.9", &["198.51.100.1"][..], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            (
                "10.0.0.1",
                &["1.1.1.1, 198.51.100.1, 10.0.0.2"],
                "198.51.100.1",
            ),
            (
                "10.0.0.1",
                &["1.1.1.1", "198.51.100.1:4711"],
                "198.51.100.1",
            ),
            ("10.0.0.1", &["1.1.1.1, hello"], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("2001:db8::1", &["[2a00::1]:80"], "2a00::1"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
        ] {
            assert_eq!(client(peer, from, lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn forwarded_is_read_as_its_specification_says() {
        let from = AddressFrom::Forwarded;
        for (line, expected) in [
            (
                r#"for=1.1.1.1, For="[2a00::1]:4711";proto=https;by=10.0.0.1"#,
                "2a00::1",
            ),
            ("proto=https;for=198.51.100.1", "198.51.100.1"),
            ("for=198.51.100.1, for=unknown", "10.0.0.1"),
            ("for=198.51.100.1, for=_hidden", "10.0.0.1"),
            ("by=198.51.100.1", "10.0.0.1"),
            // A `host` that the sender wrote names no other sender.
            (
                r#"for=203.0.113.9;host="x,for=198.51.100.7""#,
                "203.0.113.9",
            ),
            (
                r#"host="x;for=198.51.100.7";for=203.0.113.9"#,
                "203.0.113.9",
            ),
            (
                r#"host="x\",for=198.51.100.7";for=203.0.113.9"#,
                "203.0.113.9",
            ),
            (r#"for=203.0.113.9;host="x,for=198.51.100.7"#, "10.0.0.1"),
            ("for=203.0.113.9;for=198.51.100.7", "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", from, &[line]), expected, "{line}");
        }
    }
}
