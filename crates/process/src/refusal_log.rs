//! The choice of refusals that have a line in the log; the others are counted.
//!
//! Anybody who reaches a port decides how often it refuses: with a line for each, a disk would be
//! full in an hour. Of requests that are not proved genuine, the first one in a minute has a line
//! for each reason and source; the rest are one line with their count. A genuine webhook that is
//! refused or quarantined may be lost, so each has a line, up to a bound.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::{ClientNetwork, Shutdown};

/// The time whose first refusal has a line, while the others are counted.
const WINDOW: Duration = Duration::from_mins(1);

/// Interval at which ended windows are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Most pairs of reason and source that are told apart in a window. With a first line and a
/// count each, a log grows by at most about 9 lines a second, however many addresses knock.
const MOST_PAIRS: usize = 256;

/// Most lines a second about genuine webhooks.
const GENUINE_A_SECOND: u32 = 10;

/// Decides for each refusal of a port, or of several, whether it has a line in the log. Clones
/// share the counts.
///
/// # Examples
/// ```
/// use std::net::IpAddr;
/// use fluent_process::{ClientNetwork, RefusalLog};
///
/// let log = RefusalLog::default();
/// let source = ClientNetwork::from(IpAddr::from([192, 0, 2, 1]));
/// assert!(log.admit_line("signature-mismatch", source), "this one has a line");
/// assert!(!log.admit_line("signature-mismatch", source), "this one is counted");
/// ```
#[derive(Clone, Debug, Default)]
pub struct RefusalLog(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    unproven: HashMap<Pair, Window>,
    genuine: Second,
}

/// A reason and a source. The source is `None` for all that had no room in the table.
type Pair = (&'static str, Option<ClientNetwork>);

#[derive(Debug)]
struct Window {
    began: Instant,
    counted: u64,
}

/// Lines about genuine refusals in the present second, and the number without a line since that
/// number was last written.
#[derive(Debug, Default)]
struct Second {
    began: Option<Instant>,
    written: u32,
    counted: u64,
}

/// Refusals that were counted and not written.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Counted {
    reason: &'static str,
    source: Option<ClientNetwork>,
    count: u64,
}

impl RefusalLog {
    /// True if a refusal of something not proved genuine has a line. If not, it is counted, and
    /// the count is written within 65 seconds.
    pub fn admit_line(&self, reason: &'static str, source: ClientNetwork) -> bool {
        self.lock().is_first(reason, source, Instant::now())
    }

    /// True if a genuine webhook that was refused or quarantined has a line: ten a second have.
    /// If not, it is counted, and the count is written within five seconds.
    pub fn has_room_for_genuine(&self) -> bool {
        self.lock().genuine.has_room(Instant::now())
    }

    /// Writes the counts until the process ends.
    pub fn start(&self, shutdown: &Shutdown) {
        let log = self.clone();
        let end = shutdown.closing();
        // As a task of the webhook port: work that ends before it must not wait for this one.
        shutdown.spawn_intake(async move {
            let mut look = interval(LOOK_EVERY);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while end.run_until_cancelled(look.tick()).await.is_some() {
                log.write(Some(Instant::now()));
            }
            log.write(None);
        });
    }

    /// Writes the counts of windows that have ended at `now`, or of all without `now`.
    fn write(&self, now: Option<Instant>) {
        let (counted, genuine) = {
            let mut counts = self.lock();
            (counts.take(now), mem::take(&mut counts.genuine.counted))
        };
        for Counted {
            reason,
            source,
            count,
        } in counted
        {
            match source {
                Some(client) => {
                    tracing::info!(reason, %client, count, "refused as often again as this counts")
                }
                None => {
                    tracing::info!(
                        reason,
                        count,
                        "refused as often again as this counts, from many others"
                    )
                }
            }
        }
        if genuine > 0 {
            tracing::error!(
                count = genuine,
                "genuine webhooks were refused or quarantined, beside those that have a line"
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn is_first(&mut self, reason: &'static str, source: ClientNetwork, now: Instant) -> bool {
        let own = (reason, Some(source));
        let has_room = self.unproven.len() < MOST_PAIRS || self.unproven.contains_key(&own);
        // This entry needs no bound: there are few reasons, and all are ours.
        let pair = if has_room { own } else { (reason, None) };
        match self.unproven.entry(pair) {
            Entry::Occupied(mut window) => {
                window.get_mut().counted += 1;
                false
            }
            Entry::Vacant(place) => {
                place.insert(Window {
                    began: now,
                    counted: 0,
                });
                true
            }
        }
    }

    fn take(&mut self, now: Option<Instant>) -> Vec<Counted> {
        let has_ended =
            |window: &Window| now.is_none_or(|now| now.duration_since(window.began) >= WINDOW);
        let ended = self.unproven.extract_if(|_, window| has_ended(window));
        let counted = ended.filter(|(_, window)| window.counted > 0);
        let mut counted: Vec<_> = counted
            .map(|((reason, source), window)| Counted {
                reason,
                source,
                count: window.counted,
            })
            .collect();
        counted.sort_unstable();
        counted
    }
}

impl Second {
    fn has_room(&mut self, now: Instant) -> bool {
        if self
            .began
            .is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1))
        {
            (self.began, self.written) = (Some(now), 0);
        }
        let has_room = self.written < GENUINE_A_SECOND;
        match has_room {
            true => self.written += 1,
            false => self.counted += 1,
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn source(number: u32) -> ClientNetwork {
        ClientNetwork::from(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn the_first_of_a_minute_is_written_for_each_reason_and_source_and_the_rest_counted() {
        let mut counts = Counts::default();
        let begin = Instant::now();
        assert!(counts.is_first("a", source(1), begin));
        assert!(counts.is_first("b", source(1), begin) && counts.is_first("a", source(2), begin));
        (0..99).for_each(|_| assert!(!counts.is_first("a", source(1), begin)));
        assert_eq!(
            counts.take(Some(begin + WINDOW - Duration::from_millis(1))),
            []
        );
        let counted = Counted {
            reason: "a",
            source: Some(source(1)),
            count: 99,
        };
        assert_eq!(counts.take(Some(begin + WINDOW)), [counted]);
        assert!(
            counts.is_first("a", source(1), begin + WINDOW),
            "the next minute has a line again"
        );
    }

    #[test]
    fn as_many_addresses_as_there_are_cost_no_more_than_a_few_lines() {
        let mut counts = Counts::default();
        let now = Instant::now();
        let written = (0..1_000_000)
            .filter(|number| counts.is_first("a", source(*number), now))
            .count();
        assert_eq!(written, MOST_PAIRS + 1);
        assert!(
            counts.is_first("b", source(0), now),
            "another reason is seen all the same"
        );
        let others = Counted {
            reason: "a",
            source: None,
            count: 1_000_000 - MOST_PAIRS as u64 - 1,
        };
        assert_eq!(counts.take(None), [others]);
    }

    #[test]
    fn ten_genuine_ones_a_second_are_written_and_the_rest_counted() {
        let mut genuine = Second::default();
        let begin = Instant::now();
        assert_eq!((0..25).filter(|_| genuine.has_room(begin)).count(), 10);
        assert_eq!(genuine.counted, 15);
        assert!(genuine.has_room(begin + Duration::from_secs(1)));
    }
}
