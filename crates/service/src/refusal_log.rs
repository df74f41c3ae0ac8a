//! Which refusals are written to the log one by one, and which are counted.
//!
//! Whoever reaches a port chooses how often it is refused: a line each would fill a disk
//! in an hour. Of what nobody has proved to be genuine, the first of a minute is written for
//! each reason and source; the rest is one line with their count. What is genuine and refused
//! or quarantined is written each time, for it may be lost, but not without end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use crate::{Shutdown, Source};

/// Of how long the first refusal is written, and the others are counted.
const WINDOW: Duration = Duration::from_mins(1);

/// How often it is looked whose window has ended.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Most pairs of reason and source that are told apart in a window. With a first line and a
/// count each, a log grows by at most about 9 lines a second, however many addresses knock.
const MOST_PAIRS: usize = 256;

/// Most lines a second of what is genuine.
const GENUINE_A_SECOND: u32 = 10;

/// Decides for each refusal of a port, or of several, whether it is written. Clones are of
/// the same.
///
/// # Examples
/// ```
/// use std::net::IpAddr;
/// use service::{RefusalLog, Source};
///
/// let log = RefusalLog::default();
/// let source = Source::from(IpAddr::from([192, 0, 2, 1]));
/// assert!(log.is_first("signature-mismatch", source), "this one has a line");
/// assert!(!log.is_first("signature-mismatch", source), "this one is counted");
/// ```
#[derive(Clone, Debug, Default)]
pub struct RefusalLog(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    unproven: HashMap<Pair, Window>,
    genuine: Second,
}

/// A reason and a source; no source for all those for whom there was no room.
type Pair = (&'static str, Option<Source>);

#[derive(Debug)]
struct Window {
    began: Instant,
    counted: u64,
}

/// What was written of genuine refusals in the second that runs, and not written at all
/// since it was last said.
#[derive(Debug, Default)]
struct Second {
    began: Option<Instant>,
    written: u32,
    counted: u64,
}

/// Refusals that were counted.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Counted {
    reason: &'static str,
    source: Option<Source>,
    count: u64,
}

impl RefusalLog {
    /// Whether a refusal of something that nobody has proved to be genuine is written. If
    /// not, it is counted, and the count is written within 65 seconds.
    pub fn is_first(&self, reason: &'static str, source: Source) -> bool {
        self.lock().is_first(reason, source, Instant::now())
    }

    /// Whether it is written that something genuine was refused or quarantined: ten in a second are. If not, it is
    /// counted, and the count is written within five seconds.
    pub fn has_room_for_genuine(&self) -> bool {
        self.lock().genuine.has_room(Instant::now())
    }

    /// Writes what was counted, until the process ends.
    pub fn start(&self, shutdown: &Shutdown) {
        let (log, end) = (self.clone(), shutdown.closing());
        // What is finished before that must not wait for this, nor this for it.
        shutdown.spawn_intake(async move {
            let mut look = interval(LOOK_EVERY);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while end.run_until_cancelled(look.tick()).await.is_some() {
                log.write(Some(Instant::now()));
            }
            log.write(None);
        });
    }

    /// Writes the counts of the windows that have ended by then, or of all.
    fn write(&self, now: Option<Instant>) {
        let (counted, genuine) = {
            let mut counts = self.lock();
            (counts.take(now), mem::take(&mut counts.genuine.counted))
        };
        for Counted { reason, source, count } in counted {
            match source {
                Some(client) => {
                    tracing::info!(reason, %client, count, "refused as often again as this counts")
                }
                None => {
                    tracing::info!(reason, count, "refused as often again as this counts, from many others")
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
    fn is_first(&mut self, reason: &'static str, source: Source, now: Instant) -> bool {
        let own = (reason, Some(source));
        let has_room = self.unproven.len() < MOST_PAIRS || self.unproven.contains_key(&own);
        // Reasons are few and ours, so these need no bound.
        let pair = if has_room { own } else { (reason, None) };
        match self.unproven.entry(pair) {
            Entry::Occupied(mut window) => {
                window.get_mut().counted += 1;
                false
            }
            Entry::Vacant(place) => {
                place.insert(Window { began: now, counted: 0 });
                true
            }
        }
    }

    fn take(&mut self, now: Option<Instant>) -> Vec<Counted> {
        let has_ended = |window: &Window| now.is_none_or(|now| now.duration_since(window.began) >= WINDOW);
        let ended = self.unproven.extract_if(|_, window| has_ended(window));
        let counted = ended.filter(|(_, window)| window.counted > 0);
        let mut counted: Vec<_> = counted
            .map(|((reason, source), window)| Counted { reason, source, count: window.counted })
            .collect();
        counted.sort_unstable();
        counted
    }
}

impl Second {
    fn has_room(&mut self, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1)) {
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

    fn source(number: u32) -> Source {
        Source::from(IpAddr::from(number.to_be_bytes()))
    }

    #[test]
    fn the_first_of_a_minute_is_written_for_each_reason_and_source_and_the_rest_counted() {
        let (mut counts, begin) = (Counts::default(), Instant::now());
        assert!(counts.is_first("a", source(1), begin));
        assert!(counts.is_first("b", source(1), begin) && counts.is_first("a", source(2), begin));
        (0..99).for_each(|_| assert!(!counts.is_first("a", source(1), begin)));
        assert_eq!(counts.take(Some(begin + WINDOW - Duration::from_millis(1))), []);
        let counted = Counted { reason: "a", source: Some(source(1)), count: 99 };
        assert_eq!(counts.take(Some(begin + WINDOW)), [counted]);
        assert!(counts.is_first("a", source(1), begin + WINDOW), "the next minute has a line again");
    }

    #[test]
    fn as_many_addresses_as_there_are_cost_no_more_than_a_few_lines() {
        let (mut counts, now) = (Counts::default(), Instant::now());
        let written = (0..1_000_000).filter(|number| counts.is_first("a", source(*number), now)).count();
        assert_eq!(written, MOST_PAIRS + 1);
        assert!(counts.is_first("b", source(0), now), "another reason is seen all the same");
        let others = Counted { reason: "a", source: None, count: 1_000_000 - MOST_PAIRS as u64 - 1 };
        assert_eq!(counts.take(None), [others]);
    }

    #[test]
    fn ten_genuine_ones_a_second_are_written_and_the_rest_counted() {
        let (mut genuine, begin) = (Second::default(), Instant::now());
        assert_eq!((0..25).filter(|_| genuine.has_room(begin)).count(), 10);
        assert_eq!(genuine.counted, 15);
        assert!(genuine.has_room(begin + Duration::from_secs(1)));
    }
}
