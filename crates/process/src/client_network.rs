//! The source that a connection or a request counts for, and the sources that are proven.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time for which a proof counts.
const PROVEN_FOR: Duration = Duration::from_mins(10);

/// Time for which a source with a proof is remembered as known.
const KNOWN_FOR: Duration = Duration::from_hours(24);

/// Most sources that are remembered: far more than Fluent, handlers and people have.
const MOST_PROVEN: usize = 4096;

/// The unit that a share is for: an IPv4 address, or an IPv6 network of 64 bits, since one
/// machine may have every address of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientNetwork(IpAddr);

impl ClientNetwork {
    /// The source of what concerns no sender: the unspecified address, from which nothing comes.
    pub const NOBODY: Self = Self(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
}

impl From<IpAddr> for ClientNetwork {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

impl fmt::Display for ClientNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

impl fmt::Debug for ClientNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({self})")
    }
}

/// The proven sources: those that sent a valid signature or token in the last ten minutes. Clones
/// share them.
#[derive(Clone, Debug, Default)]
pub struct ProvenSources(Arc<Mutex<HashMap<ClientNetwork, Instant>>>);

impl ProvenSources {
    /// Notes that this source sent a proof just now.
    pub fn note(&self, source: ClientNetwork) {
        let mut proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if proven.len() >= MOST_PROVEN && !proven.contains_key(&source) {
            proven.retain(|_, at| at.elapsed() < PROVEN_FOR);
            if proven.len() >= MOST_PROVEN {
                return;
            }
        }
        proven.insert(source, Instant::now());
    }

    /// True if the source sent a proof in the last ten minutes.
    pub fn has(&self, source: ClientNetwork) -> bool {
        self.has_within(source, PROVEN_FOR)
    }

    /// True if the source sent a proof in the last day: what is refused from it may be a real
    /// sender's.
    pub fn has_known(&self, source: ClientNetwork) -> bool {
        self.has_within(source, KNOWN_FOR)
    }

    fn has_within(&self, source: ClientNetwork, time: Duration) -> bool {
        let proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        proven.get(&source).is_some_and(|at| at.elapsed() < time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> ClientNetwork {
        ClientNetwork::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn an_ipv6_network_is_one_source_and_a_mapped_address_is_an_ipv4_address() {
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn as_many_proven_sources_as_there_are_addresses_are_not_remembered() {
        let proven = ProvenSources::default();
        for number in 0..=MOST_PROVEN {
            proven.note(ClientNetwork::from(IpAddr::from(
                u32::try_from(number).unwrap().to_be_bytes(),
            )));
        }
        assert!(proven.has(source("0.0.0.1")));
        assert_eq!(proven.0.lock().unwrap().len(), MOST_PROVEN);
    }
}
