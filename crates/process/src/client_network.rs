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

impl ClientNetwork {
    /// The network of such a text as [`ClientNetwork`] is displayed as.
    pub fn named(text: &str) -> Option<Self> {
        let address = text.strip_suffix("/64").unwrap_or(text);
        Some(Self::from(address.parse::<IpAddr>().ok()?))
    }
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

/// The proven sources: those that sent a new genuine event, or a token, in the last ten minutes.
/// Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ProvenSources(Arc<Mutex<HashMap<ClientNetwork, Proof>>>);

/// A source's latest proof.
#[derive(Clone, Copy, Debug)]
struct Proof {
    noted: Instant,
    /// Its age when it was noted.
    age_then: Duration,
}

impl Proof {
    fn age(self) -> Duration {
        self.noted.elapsed().saturating_add(self.age_then)
    }
}

impl ProvenSources {
    /// Notes that this source sent a proof just now.
    pub fn note(&self, source: ClientNetwork) {
        let mut proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if proven.len() >= MOST_PROVEN && !proven.contains_key(&source) {
            proven.retain(|_, proof| proof.age() < PROVEN_FOR);
            if proven.len() >= MOST_PROVEN {
                return;
            }
        }
        let proof = Proof {
            noted: Instant::now(),
            age_then: Duration::ZERO,
        };
        proven.insert(source, proof);
    }

    /// Makes a source known that sent a proof so long ago, as a record says. It does not count as
    /// proven by that.
    pub fn remember(&self, source: ClientNetwork, age: Duration) {
        let mut proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let proof = Proof {
            noted: Instant::now(),
            age_then: age.max(PROVEN_FOR),
        };
        let is_newer = proven
            .get(&source)
            .is_none_or(|known| proof.age() < known.age());
        let has_room = proven.len() < MOST_PROVEN || proven.contains_key(&source);
        if age < KNOWN_FOR && is_newer && has_room {
            proven.insert(source, proof);
        }
    }

    /// The sources that sent a proof in the last day, with its age.
    pub fn known(&self) -> Vec<(ClientNetwork, Duration)> {
        let proven = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let aged = proven.iter().map(|(source, proof)| (*source, proof.age()));
        aged.filter(|(_, age)| *age < KNOWN_FOR).collect()
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
        proven.get(&source).is_some_and(|proof| proof.age() < time)
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
    fn a_proof_counts_for_ten_minutes_and_is_known_for_a_day() {
        let (proven, sender) = (ProvenSources::default(), source("192.0.2.1"));
        for (age, counts, is_known) in [
            (Duration::from_secs(599), true, true),
            (Duration::from_secs(600), false, true),
            (Duration::from_secs(24 * 3600 - 1), false, true),
            (Duration::from_hours(24), false, false),
        ] {
            let proof = Proof {
                noted: Instant::now(),
                age_then: age,
            };
            proven.0.lock().unwrap().insert(sender, proof);
            assert_eq!(
                (proven.has(sender), proven.has_known(sender)),
                (counts, is_known),
                "after {age:?}"
            );
        }
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
