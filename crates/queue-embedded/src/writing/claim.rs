//! Claims: recording that attempts begin, and moving a route's cursor.

use std::sync::Arc;
use std::time::Instant;

use event_model::Timestamp;
use queue::{Delivery, Position, QueueError, Ticket};
use rusqlite::{OptionalExtension, params};
use sqlite_file::rows::{from_nanos, signed};
use sqlite_file::{Job, lock};
use tokio::sync::oneshot;

use crate::reading::ready::ReadyDelivery;
use crate::reading::route::{ClaimedDeliveries, RouteBuffer};
use crate::shared::{LeaseKey, OpenLease, Shared};
use crate::writing::job::{QueueJobs, Store};
use crate::writing::settle::EmbeddedLease;

/// Records attempts before they begin.
pub(crate) struct ClaimJob {
    route: Arc<RouteBuffer>,
    shared: Arc<Shared>,
    taken: ClaimedDeliveries,
    /// For each pick, when its first attempt began; `None` if the row was not as the tail reader
    /// saw it.
    claimed: Vec<Option<i64>>,
    /// True if the cursor was not where this claim expects it.
    overtaken: bool,
    /// True if a row was not as the tail reader saw it.
    missed: bool,
    reply: oneshot::Sender<Result<Vec<Delivery>, QueueError>>,
}

impl ClaimJob {
    pub(crate) fn new(
        route: Arc<RouteBuffer>,
        shared: Arc<Shared>,
        taken: ClaimedDeliveries,
        reply: oneshot::Sender<Result<Vec<Delivery>, QueueError>>,
    ) -> Self {
        Self {
            route,
            shared,
            taken,
            claimed: Vec::new(),
            overtaken: false,
            missed: false,
            reply,
        }
    }
}

impl Job<QueueJobs> for ClaimJob {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        // A job may be applied twice: the first time in a group that was rolled back.
        (self.overtaken, self.missed) = (false, false);
        if !move_cursor(store, self.route.id, self.taken.cursor)? {
            self.overtaken = true;
            return Ok(());
        }
        self.claimed.clear();
        for pick in &self.taken.picks {
            self.claimed.push(claim(store, self.route.id, pick)?);
        }
        if !self.claimed.iter().all(Option::is_some) {
            // The reader saw a row before its last attempt, and must read it again.
            self.missed = true;
            self.route.waits_until(i64::MIN);
        }
        Ok(())
    }

    fn wakes_reader(&self) -> bool {
        self.overtaken || self.missed
    }

    fn finish(self: Box<Self>, committed: Result<(), QueueError>) {
        if committed.is_err() || self.overtaken {
            self.route.set_stale();
            let _ = self.reply.send(committed.map(|()| Vec::new()));
            return;
        }
        let Self {
            route,
            shared,
            taken,
            claimed,
            reply,
            ..
        } = *self;
        let picks = taken
            .picks
            .into_iter()
            .zip(claimed)
            .filter_map(|(pick, first_at)| Some((pick, first_at?)));
        let deliveries = picks
            .map(|(pick, first_at)| hand_out(&shared, &route, pick, first_at))
            .collect();
        // If the consumer waits no longer, dropping the deliveries gives them back.
        let _ = reply.send(deliveries);
    }
}

/// Moves a route's cursor from one position to another; `false` if it was not there, or the route
/// was forgotten meanwhile.
pub(crate) fn move_cursor(
    store: &Store<'_>,
    route: i64,
    cursor: Option<(u64, u64)>,
) -> rusqlite::Result<bool> {
    let Some((from, to)) = cursor else {
        return store
            .sql
            .prepare_cached("SELECT 1 FROM routes WHERE id = ?1")?
            .exists([route]);
    };
    store
        .sql
        .prepare_cached("UPDATE routes SET cursor = ?3 WHERE id = ?1 AND cursor = ?2")?
        .execute(params![route, signed(from), signed(to)])
        .map(|rows| rows == 1)
}

/// Claims a row; returns when its first attempt began, as the row says it. The clock may have been
/// set since the tail reader read it.
fn claim(store: &Store<'_>, route: i64, pick: &ReadyDelivery) -> rusqlite::Result<Option<i64>> {
    let position = signed(pick.position);
    let Some(retry) = pick.retry else {
        let rows = store
            .sql
            .prepare_cached(
                "INSERT OR IGNORE INTO deliveries (route, position, redrive, in_flight, attempt, first_at, at)
                 VALUES (?1, ?2, 0, 1, 1, ?3, ?3)",
            )?
            .execute(params![route, position, store.now])?;
        return Ok((rows == 1).then_some(store.now));
    };
    store
        .sql
        .prepare_cached(
            "UPDATE deliveries SET in_flight = 1, attempt = attempt + 1, at = ?4,
                first_at = CASE attempt WHEN 0 THEN ?4 ELSE first_at END
             WHERE route = ?1 AND position = ?2 AND redrive = ?3 AND in_flight = 0 AND attempt = ?5
             RETURNING first_at",
        )?
        .query_row(
            params![route, position, retry.redrive, store.now, retry.attempt],
            |row| row.get(0),
        )
        .optional()
}

fn hand_out(
    shared: &Arc<Shared>,
    route: &Arc<RouteBuffer>,
    pick: ReadyDelivery,
    first_at: i64,
) -> Result<Delivery, QueueError> {
    let position = Position::new(0, pick.position)?;
    let retry = pick.retry;
    let (redrive, attempt) = retry.map_or((0, 1), |retry| (retry.redrive, retry.attempt + 1));
    let key = LeaseKey {
        route: route.id,
        position: pick.position,
        redrive,
    };
    let held = OpenLease {
        attempt,
        until: Instant::now() + route.lease,
        route: Arc::clone(route),
    };
    lock(&shared.leases).insert(key, held);
    Ok(Delivery {
        event: pick.event,
        position,
        redrive,
        attempt,
        first_attempt_at: from_nanos(first_at).unwrap_or(Timestamp::UNIX_EPOCH),
        deaths: retry.map_or(0, |retry| retry.deaths),
        asks_match: retry.is_some_and(|retry| retry.asks_match),
        asked: retry.map_or(0, |retry| retry.asked),
        matched: pick.matched,
        ticket: Ticket::new(EmbeddedLease::new(
            Arc::clone(shared),
            Arc::clone(route),
            key,
            attempt,
        )),
    })
}

/// Moves a route's cursor past events that do not match.
pub(crate) struct SkipAhead {
    pub(crate) route: Arc<RouteBuffer>,
    pub(crate) cursor: (u64, u64),
}

impl Job<QueueJobs> for SkipAhead {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        if !move_cursor(store, self.route.id, Some(self.cursor))? {
            self.route.set_stale();
        }
        Ok(())
    }

    fn finish(self: Box<Self>, committed: Result<(), QueueError>) {
        if committed.is_err() {
            self.route.set_stale();
        }
    }
}
