//! The check of the addresses that may be connected to.
//!
//! URLs come from settings, not from events. An address written out in one is
//! the operator's choice, also a private or loopback one. A name is resolved,
//! every address of the answer checked, and then exactly these are used: a
//! name that changes its mind between check and use gains nothing. Link-local
//! and metadata addresses are refused however they are written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use tower::Service;
use url::{Host, Url};

use crate::BoxError;

/// Metadata services of the large clouds outside the link-local range:
/// Alibaba, Azure, Oracle, and over IPv6 Google and all of Amazon's.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);

/// Reason for which an address is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Link-local, metadata, unspecified, multicast, broadcast, reserved or Teredo.
    #[error("link-local, metadata, multicast and reserved addresses are never connected to")]
    Never,
    /// A name that resolves into a private network.
    #[error(
        "the name resolves to a private or loopback address; set `allow-private: true` if that is meant"
    )]
    Private,
}

/// Checks the host of a URL, if it is an address.
pub fn check_literal(url: &Url) -> Result<(), AddressError> {
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        Some(Host::Domain(_)) | None => return Ok(()),
    };
    check(address, true)
}

/// Checks an address to which a name resolved.
pub fn check(address: IpAddr, allow_private: bool) -> Result<(), AddressError> {
    let address = unwrapped(address);
    if is_never(address) {
        return Err(AddressError::Never);
    }
    if is_private(address) && !allow_private {
        return Err(AddressError::Private);
    }
    Ok(())
}

/// Returns the IPv4 address inside an IPv6 address: mapped, compatible, translated (RFC 7915),
/// NAT64, ISATAP, or 6to4.
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    if let [0x2002, high, low, ..] = v6.segments() {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        return Ipv4Addr::new(a, b, c, d).into();
    }
    let nat64 = matches!(
        v6.segments(),
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0xffff, 0, ..]
    );
    let isatap = matches!(v6.segments(), [.., 0 | 0x200, 0x5efe, _, _]);
    let compatible = v6.segments()[..6] == [0; 6] && v6.segments()[6] != 0;
    let [.., a, b, c, d] = v6.octets();
    match v6.to_ipv4_mapped() {
        Some(v4) => v4.into(),
        None if nat64 || isatap || compatible => Ipv4Addr::new(a, b, c, d).into(),
        None => address,
    }
}

fn is_never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.octets()[0] == 0
                || v4.is_multicast()
                // Reserved (RFC 1112), and broadcast, which some networks route to an unknown
                // place.
                || v4.octets()[0] >= 240
                || METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => {
            let is_amazons = matches!(v6.segments(), [0xfd00, 0xec2, ..]);
            // Teredo (RFC 4380) leads to an IPv4 address behind a NAT.
            let is_teredo = matches!(v6.segments(), [0x2001, 0, ..]);
            // Only the network itself knows which IPv4 addresses its local NAT64 stands for.
            let is_local_nat64 = matches!(v6.segments(), [0x64, 0xff9b, 1, ..]);
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6 == METADATA_V6
                || is_amazons
                || is_local_nat64
                || is_teredo
        }
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        // As good as private: shared space (RFC 6598), protocol assignments (RFC
        // 6890), benchmarks (RFC 2544), and IPv6's old site-local (RFC 3879).
        IpAddr::V4(v4) => {
            let is_special = match v4.octets() {
                [100, b, ..] => b & 0xc0 == 64,
                [192, 0, 0, _] | [198, 18 | 19, ..] => true,
                _ => false,
            };
            v4.is_private() || v4.is_loopback() || is_special
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unique_local() || v6.segments()[0] & 0xffc0 == 0xfec0
        }
    }
}

/// Refuses the whole answer of a resolver for one bad address in it. It resolves for every
/// connection: earlier answers count for nothing.
#[derive(Clone, Debug)]
pub(crate) struct CheckedResolver<R> {
    pub(crate) allow_private: bool,
    pub(crate) resolver: R,
}

impl<R: Resolve> Service<Name> for CheckedResolver<R> {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let allow_private = self.allow_private;
        let found = self.resolver.resolve(name.as_str().to_owned());
        Box::pin(async move { checked(found.await?, allow_private).map(Vec::into_iter) })
    }
}

type Resolving = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, BoxError>> + Send>>;

/// Resolves names.
pub(crate) trait Resolve {
    /// Returns the addresses of `name`; their ports mean nothing.
    fn resolve(&self, name: String) -> Resolving;
}

/// Resolves by the system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct System;

impl Resolve for System {
    fn resolve(&self, name: String) -> Resolving {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
    }
}

fn checked(found: Vec<SocketAddr>, allow_private: bool) -> Result<Vec<SocketAddr>, BoxError> {
    for address in &found {
        check(address.ip(), allow_private)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn literal(url: &str, expected: Result<(), AddressError>) {
        assert_eq!(check_literal(&Url::parse(url).unwrap()), expected, "{url}");
    }

    #[test]
    fn metadata_is_refused_in_every_notation() {
        for host in [
            "169.254.169.254",
            "2852039166",
            "0xA9FEA9FE",
            "0xa9.0xfe.0xa9.0xfe",
            "0251.0376.0251.0376",
            "169.254.43518",
            "[::ffff:169.254.169.254]",
            "[::ffff:a9fe:a9fe]",
            "[::169.254.169.254]",
            "[64:ff9b::169.254.169.254]",
            "[fe80::1]",
            "[fd00:ec2::254]",
            "100.100.100.200",
            "168.63.129.16",
            "0.0.0.0",
            "[::]",
            "[64:ff9b:1::169.254.169.254]",
            "[2002:a9fe:a9fe::1]",
            "[2001:db8::5efe:169.254.169.254]",
        ] {
            literal(&format!("http://{host}/latest"), Err(AddressError::Never));
        }
    }

    #[test]
    fn what_leads_nobody_knows_where_is_refused() {
        for host in [
            "240.0.0.1",
            "254.1.2.3",
            "255.255.255.255",
            "0xf0000001",
            "[::ffff:240.0.0.1]",
            "[64:ff9b::f000:1]",
            "[2002:f000:1::]",
        ] {
            literal(&format!("http://{host}/"), Err(AddressError::Never));
        }
        // Teredo, whatever is in it; this one leads through a public server to a public address.
        literal(
            "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
            Err(AddressError::Never),
        );
        literal("http://[2001::1]/", Err(AddressError::Never));
        for host in [
            "239.255.255.255",
            "223.255.255.254",
            "[2001:4860:4860::8888]",
            "[2001:1::1]",
        ] {
            let expected = if host.starts_with("239") {
                Err(AddressError::Never)
            } else {
                Ok(())
            };
            literal(&format!("http://{host}/"), expected);
        }
        assert_eq!(
            check("64:ff9b::10.0.0.1".parse().unwrap(), false),
            Err(AddressError::Private)
        );
    }

    #[test]
    fn an_address_written_out_is_the_operators_choice() {
        for host in [
            "127.0.0.1:9",
            "10.0.0.1",
            "[::1]",
            "192.168.1.1",
            "8.8.8.8",
            "example.com",
            "localhost",
        ] {
            literal(&format!("http://{host}/"), Ok(()));
        }
    }

    #[test]
    fn a_name_may_not_lead_inside_unless_allowed() {
        for inside in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "192.0.0.8",
            "198.19.255.1",
            "fec0::1",
            "::1",
            "fd12::1",
            "::ffff:10.0.0.1",
        ] {
            let address = inside.parse().unwrap();
            assert_eq!(
                check(address, false),
                Err(AddressError::Private),
                "{inside}"
            );
            assert_eq!(check(address, true), Ok(()), "{inside}");
        }
        assert_eq!(check("93.184.216.34".parse().unwrap(), false), Ok(()));
        assert_eq!(
            check("169.254.169.254".parse().unwrap(), true),
            Err(AddressError::Never)
        );
    }

    #[test]
    fn one_bad_address_refuses_the_whole_answer() {
        let mixed = ["93.184.216.34:0", "127.0.0.1:0"]
            .map(|a| a.parse().unwrap())
            .to_vec();
        assert!(checked(mixed.clone(), false).is_err());
        assert_eq!(checked(mixed, true).unwrap().len(), 2);
    }

    /// Answers with a good address first, and with the metadata service after that.
    struct Rebinding(std::sync::atomic::AtomicBool);

    impl Resolve for Rebinding {
        fn resolve(&self, _: String) -> Resolving {
            let was_asked = self.0.swap(true, std::sync::atomic::Ordering::Relaxed);
            let answer = if was_asked {
                "169.254.169.254:0"
            } else {
                "93.184.216.34:0"
            };
            Box::pin(async move { Ok(vec![answer.parse()?]) })
        }
    }

    #[tokio::test]
    async fn a_name_that_changes_its_mind_gains_nothing() {
        let resolver = Rebinding(std::sync::atomic::AtomicBool::default());
        let mut checked = CheckedResolver {
            allow_private: true,
            resolver,
        };
        let mut ask = || checked.call("hooks.example.com".parse().unwrap());
        let found: Vec<_> = ask().await.unwrap().collect();
        assert_eq!(
            found,
            ["93.184.216.34:0".parse().unwrap()],
            "what was checked is what is used"
        );
        assert!(ask().await.is_err());
    }
}
