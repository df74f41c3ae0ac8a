//! Whether nearly all genuine webhooks come from one private address: that is a proxy which
//! nobody said is one, and all who are behind it share what one sender may have.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use queue::processes::ProcessReport;

/// Genuine webhooks of which the senders are compared.
const COMPARED: u32 = 100;

/// Nearly all of them.
const NEARLY_ALL: u32 = 95;

/// Who sends nearly everything. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub struct MainSender(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    /// The sender of the first of those that are compared now.
    first: Option<IpAddr>,
    from_first: u32,
    all: u32,
    /// Who sent nearly all of those before.
    before: Option<IpAddr>,
}

impl MainSender {
    /// A genuine webhook came from this address.
    pub(crate) fn note(&self, address: IpAddr) {
        let mut counted = self.lock();
        let first = *counted.first.get_or_insert(address);
        counted.all += 1;
        counted.from_first += u32::from(first == address);
        if counted.all == COMPARED {
            let before = (counted.from_first >= NEARLY_ALL).then_some(first);
            *counted = Counted { before, ..Counted::default() };
        }
    }

    /// Says it, if it is a private address that is no trusted proxy's.
    pub(crate) fn add_to(&self, report: &mut ProcessReport, is_trusted: impl Fn(IpAddr) -> bool) {
        let sender = self.lock().before.filter(|address| is_private(*address) && !is_trusted(*address));
        report.untrusted_proxy = sender.map(|address| address.to_string());
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of a network that is not the internet's. This machine's own senders are tests and people.
fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, ..] = address.octets();
            address.is_private() || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(senders: &[(&str, u32)], trusted: &str) -> Option<String> {
        let main = MainSender::default();
        for (address, count) in senders {
            (0..*count).for_each(|_| main.note(address.parse().unwrap()));
        }
        let mut report = ProcessReport::default();
        main.add_to(&mut report, |address| address.to_string() == trusted);
        report.untrusted_proxy
    }

    #[test]
    fn one_private_address_that_sends_nearly_everything_is_named() {
        for (address, is_named) in [
            ("10.0.0.5", true),
            ("100.64.0.1", true),
            ("::ffff:192.168.1.1", true),
            ("fd00::5", true),
            ("127.0.0.1", false),
            ("198.51.100.7", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(told(&[(address, 95), ("198.51.100.1", 5)], "").is_some(), is_named, "{address}");
        }
        assert_eq!(told(&[("10.0.0.5", 95), ("10.0.0.6", 5)], "10.0.0.5"), None, "it is trusted");
        assert_eq!(told(&[("10.0.0.5", 94), ("10.0.0.6", 6)], ""), None, "there are two");
        assert_eq!(told(&[("10.0.0.5", 99)], ""), None, "too few to tell");
        assert_eq!(told(&[("10.0.0.5", 100), ("198.51.100.1", 100)], ""), None, "not any more");
    }
}
