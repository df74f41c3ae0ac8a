//! What is checked of every request before anything else: whose page sent it, and to whom.

use std::net::IpAddr;

use hyper::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::http::request::Parts;
use hyper::{Method, Version};
use process::ClientNetwork;

use crate::hosts::Hosts;

/// Headers by which a proxy says for whom it asks.
const PROXIED: [&str; 7] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-real-ip",
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The reason why a request is not answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RefusedRequest {
    /// It is for another host.
    ForeignHost,
    /// It has no host, or several.
    NoHost,
    /// A method that no page has.
    Method,
    /// A proxy sent it, and nobody has to sign in.
    Proxied,
    /// Another page may have sent it. The text says what shows that.
    NotOurPage(&'static str),
}

/// Checks a request, and returns its host with its port.
///
/// # Errors
/// If it must not be answered.
pub(crate) fn check(
    parts: &Parts,
    hosts: &Hosts,
    is_open: bool,
    is_secure: bool,
) -> Result<String, RefusedRequest> {
    let authority = authority(parts).ok_or(RefusedRequest::NoHost)?;
    if !hosts.has(authority) {
        return Err(RefusedRequest::ForeignHost);
    }
    // Browsers speak HTTP/1.1, and proxies that name themselves nowhere often HTTP/1.0.
    let is_proxied = parts.version < Version::HTTP_11
        || PROXIED.iter().any(|name| parts.headers.contains_key(*name));
    if is_open && is_proxied {
        return Err(RefusedRequest::Proxied);
    }
    match parts.method {
        Method::GET | Method::HEAD => ensure_no_part_of_another_page(&parts.headers)?,
        Method::POST => ensure_our_page(&parts.headers, authority, is_secure)?,
        _ => return Err(RefusedRequest::Method),
    }
    Ok(authority.to_ascii_lowercase())
}

/// The host that was asked for. `None` if the request does not have exactly one.
fn authority(parts: &Parts) -> Option<&str> {
    let host = only(&parts.headers, &HOST)?;
    match parts.uri.authority() {
        Some(other) if !other.as_str().eq_ignore_ascii_case(host) => None,
        _ => Some(host),
    }
}

/// The client for which the nearest proxy asks: the last that `X-Forwarded-For` names, since all
/// before it was written by others.
pub(crate) fn forwarded_for(headers: &HeaderMap) -> Option<ClientNetwork> {
    let last = headers.get_all(FORWARDED_FOR).iter().next_back()?;
    let address = last.to_str().ok()?.rsplit(',').next()?.trim();
    let address: IpAddr = address.parse().ok()?;
    Some(ClientNetwork::from(address))
}

/// The value of a header that is there once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Fails if a page of another origin asks for this as a part of itself: an image, a frame, a
/// script. A link from it may open a page.
fn ensure_no_part_of_another_page(headers: &HeaderMap) -> Result<(), RefusedRequest> {
    let is = |name: &HeaderName, value: &str| only(headers, name) == Some(value);
    let is_ours = !headers.contains_key(&FETCH_SITE)
        || is(&FETCH_SITE, "same-origin")
        || is(&FETCH_SITE, "none");
    if is_ours || (is(&FETCH_MODE, "navigate") && is(&FETCH_DEST, "document")) {
        return Ok(());
    }
    let why = "another site asks for it as a part of its page";
    Err(RefusedRequest::NotOurPage(why))
}

/// Fails if a page of another origin may have sent this change.
fn ensure_our_page(
    headers: &HeaderMap,
    authority: &str,
    is_secure: bool,
) -> Result<(), RefusedRequest> {
    let refuse = |why| Err(RefusedRequest::NotOurPage(why));
    let is_ours = only(headers, &ORIGIN).map(|origin| is_origin_of(origin, authority, is_secure));
    // An extension may hide the origin of every form.
    let is_hidden = only(headers, &ORIGIN) == Some("null");
    if headers.contains_key(&FETCH_SITE) {
        return match only(headers, &FETCH_SITE) {
            Some("same-origin") if is_ours == Some(false) && !is_hidden => {
                refuse("its Origin is another's")
            }
            Some("same-origin") => Ok(()),
            _ => refuse("its Sec-Fetch-Site is not same-origin"),
        };
    }
    match is_ours {
        Some(true) => Ok(()),
        Some(false) => refuse("it has no Sec-Fetch-Site, and its Origin is another's"),
        None => refuse("it has neither Sec-Fetch-Site nor Origin, of which browsers send one"),
    }
}

fn is_origin_of(origin: &str, authority: &str, is_secure: bool) -> bool {
    // A proxy on this machine may end TLS before us.
    let plain = || origin.strip_prefix("http://").filter(|_| !is_secure);
    let host = origin.strip_prefix("https://").or_else(plain);
    host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn answer(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<String, RefusedRequest> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        check(&parts, &Hosts::new(&[]), true, false)
    }

    #[test]
    fn a_page_needs_one_host_that_is_ours() {
        let get = |headers: &[(&str, &str)]| answer("GET", "/", headers);
        assert_eq!(
            get(&[("host", "LOCALHOST:80")]),
            Ok("localhost:80".to_owned())
        );
        assert_eq!(
            get(&[("host", "evil.example")]),
            Err(RefusedRequest::ForeignHost)
        );
        assert_eq!(get(&[]), Err(RefusedRequest::NoHost));
        let twice = get(&[("host", "localhost"), ("host", "localhost")]);
        assert_eq!(twice, Err(RefusedRequest::NoHost));
        let absolute = answer("GET", "http://evil.example/", &[("host", "localhost")]);
        assert_eq!(absolute, Err(RefusedRequest::NoHost));
    }

    #[test]
    fn a_change_comes_from_a_page_of_ours() {
        let post = |more: &[(&str, &str)]| {
            let headers = [&[("host", "localhost:80")], more].concat();
            answer("POST", "/", &headers)
        };
        let is_refused =
            |more: &[(&str, &str)]| matches!(post(more), Err(RefusedRequest::NotOurPage(_)));
        assert!(post(&[("sec-fetch-site", "same-origin")]).is_ok());
        assert!(post(&[("sec-fetch-site", "same-origin"), ("origin", "null")]).is_ok());
        assert!(post(&[("origin", "http://localhost:80")]).is_ok());
        for site in ["cross-site", "same-site", "none", ""] {
            assert!(is_refused(&[("sec-fetch-site", site)]), "{site}");
            let ours = ("origin", "http://localhost:80");
            assert!(is_refused(&[("sec-fetch-site", site), ours]), "{site}");
        }
        for origin in [
            "null",
            "http://localhost",
            "http://evil.example",
            "ftp://localhost:80",
        ] {
            assert!(is_refused(&[("origin", origin)]), "{origin}");
        }
        let foreign = ("origin", "http://evil.example");
        assert!(is_refused(&[("sec-fetch-site", "same-origin"), foreign]));
        assert!(is_refused(&[]));
        let doubled = ("sec-fetch-site", "same-origin");
        assert!(is_refused(&[doubled, ("sec-fetch-site", "cross-site")]));
    }

    #[test]
    fn no_page_is_a_part_of_another_sites_page() {
        let get = |headers: &[(&str, &str)]| {
            answer("GET", "/", &[&[("host", "localhost")], headers].concat())
        };
        for site in ["cross-site", "same-site"] {
            let from = ("sec-fetch-site", site);
            let navigate = ("sec-fetch-mode", "navigate");
            assert!(get(&[from, navigate, ("sec-fetch-dest", "document")]).is_ok());
            for (mode, kind) in [
                ("no-cors", "image"),
                ("cors", "empty"),
                ("navigate", "iframe"),
            ] {
                let part = get(&[from, ("sec-fetch-mode", mode), ("sec-fetch-dest", kind)]);
                assert!(matches!(part, Err(RefusedRequest::NotOurPage(_))), "{kind}");
            }
            assert!(get(&[from]).is_err());
        }
        for site in ["same-origin", "none"] {
            assert!(get(&[("sec-fetch-site", site), ("sec-fetch-dest", "style")]).is_ok());
        }
    }

    /// nginx speaks HTTP/1.0 unless it is told otherwise, under a host that it makes up.
    #[test]
    fn a_proxy_that_says_nothing_of_itself_is_known_by_its_version() {
        let request = Request::builder().uri("/").version(Version::HTTP_10);
        let request = request.header("host", "127.0.0.1:8090");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let asked = |is_open| check(&parts, &Hosts::new(&[]), is_open, false);
        assert_eq!(asked(true), Err(RefusedRequest::Proxied));
        assert!(asked(false).is_ok());
    }

    #[test]
    fn a_proxy_needs_callers_that_are_known() {
        for name in PROXIED {
            let proxied = answer("GET", "/", &[("host", "localhost"), (name, "x")]);
            assert_eq!(proxied, Err(RefusedRequest::Proxied), "{name}");
        }
        for method in ["PUT", "DELETE", "OPTIONS", "TRACE", "X"] {
            let refused = answer(method, "/", &[("host", "localhost")]);
            assert_eq!(refused, Err(RefusedRequest::Method), "{method}");
        }
    }
}
