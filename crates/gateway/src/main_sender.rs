//! Detection of a proxy that is not in the settings: nearly all genuine webhooks come from one
//! private address. All senders behind such a proxy share what one sender may have.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use queue::processes::ProcessReport;

/// Genuine webhooks of which the senders are compared.
const COMPARED: u32 = 100;

/// Genuine webhooks from one address, out of `COMPARED`, that make it the main sender.
const NEARLY_ALL: u32 = 95;

/// The address that sends nearly all genuine webhooks. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct MainSender(Arc<Mutex<SenderCount>>);

#[derive(Debug, Default)]
struct SenderCount {
    /// The sender of the first webhook in the group that is being counted.
    first: Option<IpAddr>,
    from_first: u32,
    all: u32,
    /// The sender of nearly all webhooks of the group before.
    before: Option<IpAddr>,
}

impl MainSender {
    /// Counts a genuine webhook from this address.
    pub(crate) fn note(&self, address: IpAddr) {
        let mut counted = self.lock();
        let first = *counted.first.get_or_insert(address);
        counted.all += 1;
        counted.from_first += u32::from(first == address);
        if counted.all == COMPARED {
            let before = (counted.from_first >= NEARLY_ALL).then_some(first);
            *counted = SenderCount {
                before,
                ..SenderCount::default()
            };
        }
    }

    /// Puts the main sender into the report, if it is a private address and no trusted proxy.
    pub(crate) fn add_to(&self, report: &mut ProcessReport, is_trusted: impl Fn(IpAddr) -> bool) {
        let sender = self
            .lock()
            .before
            .filter(|address| is_private(*address) && !is_trusted(*address));
        report.untrusted_proxy = sender.map(|address| address.to_string());
    }

    fn lock(&self) -> MutexGuard<'_, SenderCount> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True for an address of a private network. This machine's own senders are tests and people, so
/// loopback does not count.
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
            assert_eq!(
                told(&[(address, 95), ("198.51.100.1", 5)], "").is_some(),
                is_named,
                "{address}"
            );
        }
        assert_eq!(
            told(&[("10.0.0.5", 95), ("10.0.0.6", 5)], "10.0.0.5"),
            None,
            "it is trusted"
        );
        assert_eq!(
            told(&[("10.0.0.5", 94), ("10.0.0.6", 6)], ""),
            None,
            "there are two"
        );
        assert_eq!(told(&[("10.0.0.5", 99)], ""), None, "too few to tell");
        assert_eq!(
            told(&[("10.0.0.5", 100), ("198.51.100.1", 100)], ""),
            None,
            "not any more"
        );
    }
}
