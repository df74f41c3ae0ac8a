//! Verification of stored messages: a process that writes to the streams past the gateways must
//! not be believed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use event_model::{Event, Forgery, StoredVerdict, StoredVerifier, Timestamp};
use queue::LineSampler;
use queue::facts::reconciled_of;

use crate::consuming::DeliveryState;
use crate::names::due;
use crate::streams::StreamName;

/// Part of its age after which a delivery that waits for its key is looked at again: after a day
/// of waiting there is no need to look every quarter of a minute.
const PART_OF_AGE: u32 = 10;

/// Longest wait, as a multiple of the shortest.
const LONGEST: u32 = 20;

/// Verifies messages that are taken, and counts those that are not genuine.
#[derive(Debug)]
pub(crate) struct Verification {
    verifier: Option<Arc<dyn StoredVerifier>>,
    retry: Duration,
    forged: AtomicU64,
    key_unknown: AtomicU64,
    /// Whoever can write to the streams can cause these lines at will, once for each route.
    pub(crate) forged_lines: LineSampler,
    pub(crate) damaged_lines: LineSampler,
}

/// A stored message, as it was found.
pub(crate) struct StoredMessage<'m> {
    pub(crate) stream: StreamName,
    pub(crate) subject: &'m str,
    pub(crate) route: &'m str,
    pub(crate) event: &'m Event,
    pub(crate) past: &'m DeliveryState,
}

impl Verification {
    pub(crate) fn new(verifier: Option<Arc<dyn StoredVerifier>>, retry: Duration) -> Self {
        Self {
            verifier,
            retry,
            forged: AtomicU64::new(0),
            key_unknown: AtomicU64::new(0),
            forged_lines: LineSampler::default(),
            damaged_lines: LineSampler::default(),
        }
    }

    /// Checks that it lies on the subject where its own bytes belong, before anything is read out
    /// of its fields: on another subject it would reach other routes than it should.
    pub(crate) fn check_place(&self, found: &StoredMessage<'_>) -> Result<(), Forgery> {
        if self.verifier.is_none() {
            return Ok(());
        }
        let own = match found.stream.shard() {
            Some(_) => found.event.subject(),
            None => due(found.route, &found.past.delivery(found.event)),
        };
        if own == found.subject {
            Ok(())
        } else {
            Err(Forgery::WrongSubject)
        }
    }

    /// Whether anything is verified.
    pub(crate) fn is_on(&self) -> bool {
        self.verifier.is_some()
    }

    /// Whether it is genuine; counts nothing.
    pub(crate) fn judge(&self, event: &Event) -> StoredVerdict {
        let verdict = self
            .verifier
            .as_ref()
            .map(|verifier| verifier.verify(event));
        verdict.unwrap_or(StoredVerdict::Verified)
    }

    /// Whether a delivery is genuine. Counts one that waits.
    pub(crate) fn verify(&self, event: &Event) -> StoredVerdict {
        let verdict = self.judge(event);
        if verdict.waits_because().is_some() {
            self.key_unknown.fetch_add(1, Ordering::Relaxed);
        }
        verdict
    }

    /// Counts a message that is not genuine.
    pub(crate) fn count_forged(&self) {
        self.forged.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many messages were not genuine, and how often one waited for its key.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.forged.load(Ordering::Relaxed),
            self.key_unknown.load(Ordering::Relaxed),
        )
    }

    /// Returns the shortest wait for a key.
    pub(crate) fn retry(&self) -> Duration {
        self.retry
    }

    /// Returns how long an event that was received at this time waits for its key before it is
    /// looked at again.
    pub(crate) fn wait(&self, received_at: Timestamp, now: Timestamp) -> Duration {
        let age = Duration::try_from(now.duration_since(received_at)).unwrap_or_default();
        (age / PART_OF_AGE).clamp(self.retry, self.retry * LONGEST)
    }

    /// Whether this fact is believed. One about a reconciled event may keep a delivery back, and so
    /// is believed only for its seal.
    pub(crate) fn believes_mark(&self, name: &str, value: &[u8]) -> bool {
        match (&self.verifier, reconciled_of(name, value)) {
            (Some(verifier), Some((key, id, seal))) => verifier.has_reconciled(key, id, seal),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_long_is_looked_at_less_often() {
        let verification = Verification::new(None, Duration::from_secs(15));
        let at = |secs| Timestamp::from_second(secs).unwrap();
        let after = |secs| verification.wait(at(0), at(secs)).as_secs();
        assert_eq!(
            [after(0), after(100), after(600), after(86_400)],
            [15, 15, 60, 300]
        );
        // A clock that was wrong when the event came in makes nothing wait for ever.
        assert_eq!(after(-60), 15);
    }
}
