//! A route's buffer of deliveries in the serving process.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use event_model::Event;
use queue::{QueueError, Route, RouteFilter};
use sqlite_file::lock;
use tokio::sync::Notify;

use crate::reading::lanes::{DeliveryRequest, Lanes};
use crate::reading::ready::ReadyDelivery;

/// One route in the serving process: a bounded buffer of the next deliveries, filled by the tail
/// reader and emptied by consumers.
#[derive(Debug)]
pub(crate) struct RouteBuffer {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) filter: RouteFilter,
    pub(crate) lease: Duration,
    pub(crate) filled: Notify,
    /// End of a pause by a person, in Unix nanoseconds; 0 while the route is not paused.
    paused_until: AtomicI64,
    /// Time of the last known request to ask the destination at once.
    asked_again: AtomicI64,
    /// Number of settlements that wait for room in the file.
    blocks: AtomicUsize,
    state: Mutex<State>,
}

/// A settlement that waits for room, until it is dropped. While there is any, its route hands
/// nothing out.
#[derive(Debug)]
pub(crate) struct BlockGuard(Arc<RouteBuffer>);

impl Drop for BlockGuard {
    fn drop(&mut self) {
        if self.0.blocks.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.filled.notify_waiters();
        }
    }
}

#[derive(Debug)]
struct State {
    /// Position up to which events were examined.
    scan: u64,
    /// Position up to which events were claimed, or do not match.
    claimed: u64,
    ready: Lanes,
    /// Time at which the next waiting row is due; `None` if none is known to wait.
    next_due: Option<i64>,
    /// True if buffer and file may disagree: the buffer must then be filled again from the file.
    stale: bool,
    /// Time at which unmatched events last moved the cursor.
    moved_at: Instant,
}

/// Deliveries taken out by a consumer, and the cursor before and after, if it moves.
#[derive(Debug)]
pub(crate) struct ClaimedDeliveries {
    pub(crate) picks: Vec<ReadyDelivery>,
    pub(crate) cursor: Option<(u64, u64)>,
}

/// Lag of the cursor in the file, in events and in time, that unmatched events may cause.
const CURSOR_LAG: u64 = 1000;
const CURSOR_EVERY: Duration = Duration::from_secs(2);

impl RouteBuffer {
    pub(crate) fn new(id: i64, route: Route, cursor: u64) -> Self {
        let Route {
            name,
            filter,
            start: _,
            lease,
        } = route;
        let state = State {
            scan: cursor,
            claimed: cursor,
            ready: Lanes::new(),
            // The last process may have left due deliveries.
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
            blocks: AtomicUsize::new(0),
            state: Mutex::new(state),
        }
    }

    /// Keeps the route from handing anything out, since a settlement could not be written.
    pub(crate) fn block(self: &Arc<Self>, error: &QueueError) -> BlockGuard {
        if self.blocks.fetch_add(1, Ordering::AcqRel) == 0 {
            tracing::error!(
                route = self.name,
                %error,
                "a delivery can't be settled now: it waits, and the route begins no more meanwhile"
            );
        }
        BlockGuard(Arc::clone(self))
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocks.load(Ordering::Acquire) > 0
    }

    /// Sets the end of a pause, 0 for none. Deliveries in the buffer stay there during the pause.
    pub(crate) fn set_paused_until(&self, until: i64) {
        let before = self.paused_until.swap(until, Ordering::AcqRel);
        if (before == 0) != (until == 0) {
            let paused = until != 0;
            tracing::warn!(
                route = self.name,
                paused,
                "the route was paused, or goes on"
            );
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

    /// Whether this request to ask the destination at once is a new one.
    pub(crate) fn ask_again(&self, at: i64) -> bool {
        self.asked_again.swap(at, Ordering::AcqRel) != at && at != 0
    }

    /// Takes deliveries, as `wanted` says; `false` if there are none. `hand_over` runs under the
    /// lock, so that cursors reach the writer in the order in which they were taken.
    pub(crate) fn take(
        &self,
        wanted: DeliveryRequest,
        hand_over: impl FnOnce(ClaimedDeliveries),
    ) -> bool {
        let mut state = lock(&self.state);
        if state.stale || self.paused_until.load(Ordering::Acquire) != 0 {
            return false;
        }
        let picks = state.ready.take(wanted);
        if picks.is_empty() {
            return false;
        }
        let cursor = state.advance(&picks);
        hand_over(ClaimedDeliveries { picks, cursor });
        true
    }

    /// Moves the cursor past events that do not match, now and then.
    pub(crate) fn idle_cursor(&self) -> Option<(u64, u64)> {
        let mut state = lock(&self.state);
        let far = state.scan >= state.claimed + CURSOR_LAG;
        if state.stale || !(far || state.moved_at.elapsed() >= CURSOR_EVERY) {
            return None;
        }
        state.moved_at = Instant::now();
        state.advance(&[])
    }

    /// The position to read on from, if there is any room.
    pub(crate) fn scan_with_room(&self) -> Option<u64> {
        let state = lock(&self.state);
        (!state.stale && !state.ready.is_full_of_new()).then_some(state.scan)
    }

    /// The position to read on from, if there is enough room to be worth a read: rows that are
    /// read for little room are read again for the next.
    pub(crate) fn wants_more(&self) -> Option<u64> {
        let state = lock(&self.state);
        (!state.stale && state.ready.is_half_empty_of_new()).then_some(state.scan)
    }

    /// Number of due rows to read, if it is worth a read; those in the buffer are read again.
    pub(crate) fn wants_retries(&self) -> Option<usize> {
        let state = lock(&self.state);
        state.ready.room_for_retries().filter(|_| !state.stale)
    }

    /// Offers events in order of position; those examined already are passed over. `end` is the
    /// position up to which was read. Returns whether anything was added.
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
                state.ready.push_new(ReadyDelivery {
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
    pub(crate) fn offer_retries(&self, due: Vec<ReadyDelivery>, next_due: Option<i64>) {
        let mut state = lock(&self.state);
        let any = !due.is_empty();
        due.into_iter()
            .for_each(|ready| state.ready.push_retry(ready));
        // A time that was set in the meantime stays.
        state.next_due = [state.next_due, next_due].into_iter().flatten().min();
        self.tell(any);
    }

    /// Records that a row waits until `at`.
    pub(crate) fn waits_until(&self, at: i64) {
        let mut state = lock(&self.state);
        state.next_due = Some(state.next_due.map_or(at, |due| due.min(at)));
    }

    /// Whether the next waiting row is due; if so, the known time is cleared. Called once in a
    /// round.
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

    /// Marks the buffer as outdated, since a claim did not happen.
    pub(crate) fn set_stale(&self) {
        lock(&self.state).stale = true;
    }

    pub(crate) fn is_stale(&self) -> bool {
        lock(&self.state).stale
    }

    /// Begins again from the cursor in the file.
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
    /// Moves the cursor with `picks`; returns it before and after, if it moves.
    fn advance(&mut self, picks: &[ReadyDelivery]) -> Option<(u64, u64)> {
        let before = self.claimed;
        let newest = picks
            .iter()
            .filter(|pick| pick.retry.is_none())
            .map(|pick| pick.position)
            .max();
        self.claimed = match (self.ready.has_new(), newest) {
            // Everything that the reader has passed is claimed.
            (false, _) => self.scan,
            (true, Some(newest)) => newest,
            (true, None) => before,
        };
        (self.claimed > before).then_some((before, self.claimed))
    }
}
