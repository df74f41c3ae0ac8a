//! Outages of the history, and which attempts may be missing in it then. While an outage lasts,
//! what is in memory is lost if the process ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_model::Timestamp;
use queue::{HistoryGap, LostAttempts, Position};
use tokio::sync::Notify;

use crate::stream_monitor::StreamMonitor;

/// Longest time for which a settlement waits for the history, whose stream may be away for
/// longer. After the first that waited in vain none waits, until the history is written again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Time for which a gap that lasts is noted ahead: longer than until it is noted again, since a
/// process that is killed says nothing more.
const AHEAD: Duration = Duration::from_secs(15);

/// The outage of the history in this process, and what it may have cost.
#[derive(Debug)]
pub(crate) struct HistoryOutage {
    monitor: Arc<StreamMonitor>,
    /// Whether the history can't be written, so that no attempt waits for it.
    is_known: AtomicBool,
    gaps: Mutex<Gaps>,
    /// Tells that there is something to note.
    pub(crate) changed: Notify,
}

#[derive(Debug, Default)]
struct Gaps {
    /// Whether there are attempts that only the memory of this process holds.
    is_open: bool,
    routes: BTreeMap<String, RouteGap>,
    /// Number of attempts that were lost in this outage.
    lost: u64,
}

/// The gap of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteGap {
    since: Timestamp,
    until: Timestamp,
    lost: Option<LostAttempts>,
    /// Whether a fact says something of it.
    pub(crate) is_noted: bool,
}

impl HistoryOutage {
    pub(crate) fn new(monitor: Arc<StreamMonitor>) -> Self {
        Self {
            monitor,
            is_known: AtomicBool::default(),
            gaps: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn gaps(&self) -> MutexGuard<'_, Gaps> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an attempt waited in vain for the history, unless it is written now. `lost` is
    /// the position of its event if there was no room to write it later.
    pub(crate) fn begin(
        &self,
        route: &str,
        lost: Option<Position>,
        is_written: impl FnOnce() -> bool,
    ) {
        let now = self.monitor.servers_now();
        let since = now.saturating_sub(PATIENCE).unwrap_or(now);
        let mut gaps = self.gaps();
        // Whoever writes says so to those who wait before it ends the outage.
        if is_written() {
            return;
        }
        gaps.extend(route, since, now);
        gaps.is_open = true;
        if let Some(position) = lost {
            gaps.lose(route, position);
        }
        if !self.is_known.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "the history can't be written: deliveries go on without waiting for it"
            );
        }
        drop(gaps);
        self.changed.notify_one();
    }

    /// Sends an attempt to be written later, if the history can't be written now; `send` says
    /// whether there was room for it. Returns the attempt if there is no outage.
    pub(crate) fn hand_over<L>(
        &self,
        route: &str,
        position: Position,
        line: L,
        send: impl FnOnce(L) -> bool,
    ) -> Option<L> {
        if !self.is_known.load(Ordering::Relaxed) {
            return Some(line);
        }
        let now = self.monitor.servers_now();
        let mut gaps = self.gaps();
        if !self.is_known.load(Ordering::Relaxed) {
            return Some(line);
        }
        let is_new = gaps.extend(route, now, now);
        if !send(line) {
            gaps.lose(route, position);
        }
        drop(gaps);
        if is_new {
            self.changed.notify_one();
        }
        None
    }

    /// Notes that the history is written again; returns how many attempts are still to be written
    /// that nobody waits for, by `waiting`. `None` if there was no outage.
    pub(crate) fn end(&self, waiting: impl FnOnce() -> usize) -> Option<usize> {
        let mut gaps = self.gaps();
        if !self.is_known.swap(false, Ordering::Relaxed) {
            return None;
        }
        let missing = std::mem::take(&mut gaps.lost);
        tracing::warn!(
            missing,
            "the history is written again: so many attempts are missing in it"
        );
        Some(waiting())
    }

    /// Notes that every attempt that nobody waited for is written, or lost.
    pub(crate) fn close(&self) {
        let mut gaps = self.gaps();
        if self.is_known.load(Ordering::Relaxed) {
            return;
        }
        if std::mem::take(&mut gaps.is_open) {
            drop(gaps);
            self.changed.notify_one();
        }
    }

    /// Returns what is known of the gap of each route, and whether they are still open.
    pub(crate) fn known(&self) -> (bool, Vec<(String, RouteGap)>) {
        let gaps = self.gaps();
        let routes = gaps.routes.iter();
        (
            gaps.is_open,
            routes
                .map(|(route, gap)| (route.clone(), gap.clone()))
                .collect(),
        )
    }

    /// Notes that a fact says what was known of the gap of `route`.
    pub(crate) fn noted(&self, route: &str, was_open: bool, said: &RouteGap) {
        let mut gaps = self.gaps();
        let is_open = gaps.is_open;
        let Some(gap) = gaps.routes.get_mut(route) else {
            return;
        };
        if was_open || is_open || gap != said {
            gap.is_noted = true;
        } else {
            gaps.routes.remove(route);
        }
    }

    /// Whether there is nothing to note.
    pub(crate) fn is_idle(&self) -> bool {
        self.gaps().routes.is_empty()
    }
}

impl Gaps {
    /// Extends the gap of a route; returns whether it is new.
    fn extend(&mut self, route: &str, since: Timestamp, until: Timestamp) -> bool {
        if let Some(gap) = self.routes.get_mut(route) {
            gap.since = gap.since.min(since);
            gap.until = gap.until.max(until);
            return false;
        }
        let gap = RouteGap {
            since,
            until,
            lost: None,
            is_noted: false,
        };
        self.routes.insert(route.to_owned(), gap);
        true
    }

    fn lose(&mut self, route: &str, position: Position) {
        self.lost += 1;
        if let Some(gap) = self.routes.get_mut(route) {
            let one = LostAttempts::one(position);
            gap.lost = Some(gap.lost.map_or(one, |lost| lost.and(one)));
        }
    }
}

impl RouteGap {
    /// What a fact should say of it, if it is still open `now`; `None` if nothing is missing.
    pub(crate) fn gap(&self, now: Option<Timestamp>, writer: &str) -> Option<HistoryGap> {
        let since = self.since;
        if let Some(now) = now {
            let until = now.saturating_add(AHEAD).unwrap_or(now);
            return Some(HistoryGap {
                since,
                until,
                lost: None,
                writer: Some(writer.to_owned()),
            });
        }
        let lost = self.lost?;
        Some(HistoryGap {
            since,
            until: self.until,
            lost: Some(lost),
            writer: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_gap_that_is_over_says_which_attempts_are_missing_and_is_none_if_none_are() {
        let mut gaps = Gaps::default();
        assert!(gaps.extend("lossy", at(10), at(20)));
        assert!(gaps.extend("whole", at(10), at(20)));
        for sequence in [7, 3, 5] {
            assert!(!gaps.extend("lossy", at(30), at(30)));
            gaps.lose("lossy", Position::new(0, sequence).unwrap());
        }
        assert_eq!(gaps.lost, 3);
        let gap = |route, now| gaps.routes[route].gap(now, "w");
        let lost = gap("lossy", None).unwrap();
        assert_eq!((lost.since, lost.until), (at(10), at(30)));
        let LostAttempts { count, first, last } = lost.lost.unwrap();
        assert_eq!((count, first.sequence(), last.sequence()), (3, 3, 7));
        assert_eq!(gap("whole", None), None);
        let open = gap("whole", Some(at(100))).unwrap();
        assert_eq!(open.lost, None, "its process may be killed");
        assert_eq!(open.writer.as_deref(), Some("w"));
        assert!(open.until > at(100), "and says nothing more then");
    }
}
