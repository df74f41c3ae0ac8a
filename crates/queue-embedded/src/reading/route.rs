//! What a running process knows of a route.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use event_model::Event;
use queue::{Filter, Route};
use sqlite_file::lock;
use tokio::sync::Notify;

use crate::reading::lanes::{Lanes, Wanted};
use crate::reading::ready::Ready;

/// What a running process knows of one route: a bounded buffer of what can be
/// delivered next, filled by the tail reader and emptied by consumers.
#[derive(Debug)]
pub(crate) struct RouteBuffer {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) filter: Filter,
    pub(crate) lease: Duration,
    pub(crate) filled: Notify,
    /// A person holds its deliveries back.
    /// Unix nanoseconds; 0 while it is not paused.
    paused_until: AtomicI64,
    /// The last wish to ask its destination at once that was heard.
    asked_again: AtomicI64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Everything up to here was looked at.
    scan: u64,
    /// Everything up to here was claimed or does not match.
    claimed: u64,
    ready: Lanes,
    /// When the next waiting row is due; `None` if none is known to wait.
    next_due: Option<i64>,
    /// The buffer and the file may disagree: begin anew from the file.
    stale: bool,
    /// When unmatched events last moved the cursor.
    moved_at: Instant,
}

/// What a consumer takes out, and how the cursor moves with it.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) picks: Vec<Ready>,
    pub(crate) cursor: Option<(u64, u64)>,
}

/// How far, and how long, unmatched events let the cursor in the file lag.
const CURSOR_LAG: u64 = 1000;
const CURSOR_EVERY: Duration = Duration::from_secs(2);

impl RouteBuffer {
    pub(crate) fn new(id: i64, route: Route, cursor: u64) -> Self {
        let Route { name, filter, start: _, lease } = route;
        let state = State {
            scan: cursor,
            claimed: cursor,
            ready: Lanes::new(),
            // Something may have been left by the last process.
            next_due: Some(i64::MIN),
            stale: false,
            moved_at: Instant::now(),
        };
        Self {
            id,
            name,
            filter,
            lease,
            filled: Notify::new(),
            paused_until: AtomicI64::new(0),
            asked_again: AtomicI64::new(0),
            state: Mutex::new(state),
        }
    }

    /// What is ready stays so while it is paused.
    pub(crate) fn set_paused_until(&self, until: i64) {
        let before = self.paused_until.swap(until, Ordering::AcqRel);
        if (before == 0) != (until == 0) {
            let paused = until != 0;
            tracing::warn!(route = self.name, paused, "the route was paused, or goes on");
            self.filled.notify_waiters();
        }
    }

    /// Ends a pause whose time has passed.
    pub(crate) fn resume_if_due(&self, now: i64) {
        let until = self.paused_until.load(Ordering::Acquire);
        if until != 0 && until <= now {
            self.set_paused_until(0);
        }
    }

    /// Whether this wish to ask the destination at once is a new one.
    pub(crate) fn is_asked_again(&self, at: i64) -> bool {
        self.asked_again.swap(at, Ordering::AcqRel) != at && at != 0
    }

    /// Takes what is `wanted`. `hand_over` runs while nobody else can take,
    /// so that cursors reach the writer in the order in which they were taken.
    pub(crate) fn take(&self, wanted: Wanted, hand_over: impl FnOnce(Taken)) -> bool {
        let mut state = lock(&self.state);
        if state.stale || self.paused_until.load(Ordering::Acquire) != 0 {
            return false;
        }
        let picks = state.ready.take(wanted);
        if picks.is_empty() {
            return false;
        }
        let cursor = state.advance(&picks);
        hand_over(Taken { picks, cursor });
        true
    }

    /// Moves the cursor past events that do not match, once in a while.
    pub(crate) fn idle_cursor(&self) -> Option<(u64, u64)> {
        let mut state = lock(&self.state);
        let far = state.scan >= state.claimed + CURSOR_LAG;
        if state.stale || !(far || state.moved_at.elapsed() >= CURSOR_EVERY) {
            return None;
        }
        state.moved_at = Instant::now();
        state.advance(&[])
    }

    /// Where to read on from, if there is a free place.
    pub(crate) fn scan_with_room(&self) -> Option<u64> {
        let state = lock(&self.state);
        (!state.stale && !state.ready.is_full_of_new()).then_some(state.scan)
    }

    /// Where to read on from, if it is worth a read: rows that are read for one free
    /// place are read again for the next.
    pub(crate) fn wants_more(&self) -> Option<u64> {
        let state = lock(&self.state);
        (!state.stale && state.ready.is_half_empty_of_new()).then_some(state.scan)
    }

    /// How many rows that are due to read, if it is worth it, with those that are in the
    /// buffer already.
    pub(crate) fn wants_retries(&self) -> Option<usize> {
        let state = lock(&self.state);
        state.ready.room_for_retries().filter(|_| !state.stale)
    }

    /// Offers events in order of position; what was looked at already is
    /// passed over. `end` is how far the reader looked.
    pub(crate) fn offer(&self, events: &[(u64, Arc<Event>)], end: u64) -> bool {
        let mut state = lock(&self.state);
        let before = state.ready.len();
        for (position, event) in events {
            if *position <= state.scan {
                continue;
            }
            if state.ready.is_full_of_new() {
                return self.tell(state.ready.len() > before);
            }
            let decided = self.filter.decide(event);
            if decided != Ok(false) {
                let matched = Some(decided.map(drop));
                state.ready.push_new(Ready {
                    position: *position,
                    event: Arc::clone(event),
                    retry: None,
                    matched,
                });
            }
            state.scan = *position;
        }
        state.scan = state.scan.max(end);
        self.tell(state.ready.len() > before)
    }

    /// Adds deliveries whose time has come.
    pub(crate) fn offer_retries(&self, due: Vec<Ready>, next_due: Option<i64>) {
        let mut state = lock(&self.state);
        let any = !due.is_empty();
        due.into_iter().for_each(|ready| state.ready.push_retry(ready));
        // Keep what was told in the meantime.
        state.next_due = [state.next_due, next_due].into_iter().flatten().min();
        self.tell(any);
    }

    /// Takes note that a row waits until `at`.
    pub(crate) fn waits_until(&self, at: i64) {
        let mut state = lock(&self.state);
        state.next_due = Some(state.next_due.map_or(at, |due| due.min(at)));
    }

    /// When the next waiting row is due, asked once per round.
    pub(crate) fn take_due(&self, now: i64) -> bool {
        let mut state = lock(&self.state);
        let due = state.next_due.is_some_and(|at| at <= now);
        if due {
            state.next_due = None;
        }
        due
    }

    pub(crate) fn next_due(&self) -> Option<i64> {
        lock(&self.state).next_due
    }

    /// A claim did not happen: what the buffer says is no longer so.
    pub(crate) fn set_stale(&self) {
        lock(&self.state).stale = true;
    }

    pub(crate) fn is_stale(&self) -> bool {
        lock(&self.state).stale
    }

    /// Begins anew from the cursor that the file has.
    pub(crate) fn reset(&self, cursor: u64) {
        let mut state = lock(&self.state);
        state.scan = cursor;
        state.claimed = cursor;
        state.ready.clear();
        state.next_due = Some(i64::MIN);
        state.stale = false;
    }

    fn tell(&self, any: bool) -> bool {
        if any {
            self.filled.notify_waiters();
        }
        any
    }
}

impl State {
    /// The cursor before and after `picks`, if it moves.
    fn advance(&mut self, picks: &[Ready]) -> Option<(u64, u64)> {
        let before = self.claimed;
        let newest = picks.iter().filter(|pick| pick.retry.is_none()).map(|pick| pick.position).max();
        self.claimed = match (self.ready.has_new(), newest) {
            // Nothing unclaimed is left behind the reader.
            (false, _) => self.scan,
            (true, Some(newest)) => newest,
            (true, None) => before,
        };
        (self.claimed > before).then_some((before, self.claimed))
    }
}
