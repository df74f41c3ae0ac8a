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
                "INSERT OR IGNORE INTO deliveries (route, position, redrive, in_flight, attempt, first_at, at, clock_set)
                 VALUES (?1, ?2, 0, 1, 1, ?3, ?3, (SELECT max(id) FROM clock_sets))",
            )?
            .execute(params![route, position, store.now])?;
        return Ok((rows == 1).then_some(store.now));
    };
    store
        .sql
        .prepare_cached(
            "UPDATE deliveries SET in_flight = 1, attempt = attempt + 1, at = ?4,
                first_at = CASE attempt WHEN 0 THEN ?4 ELSE first_at
                    + (SELECT coalesce(sum(tried), 0) FROM clock_sets WHERE id > deliveries.clock_set) END,
                clock_set = (SELECT max(id) FROM clock_sets)
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

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::file::schema::ALL;
    use crate::reading::ready::Retry;

    /// Those that wait follow a clock that was set a few at a time.
    #[test]
    fn a_delivery_that_has_still_to_follow_the_clock_follows_when_it_is_claimed() {
        let sql = Connection::open_in_memory().unwrap();
        ALL.iter()
            .for_each(|tables| sql.execute_batch(tables).unwrap());
        sql.execute_batch(
            "INSERT INTO routes (id, name, cursor) VALUES (1, 'r', 2);
             INSERT INTO deliveries (route, position, redrive, in_flight, attempt, first_at, at)
             VALUES (1, 1, 0, 0, 3, 1000, 2000);
             INSERT INTO clock_sets (due, tried) VALUES (0, 70), (-500, -500);",
        )
        .unwrap();
        let store = Store {
            sql: &sql,
            last: &mut 2,
            now: 9000,
            age: 0,
        };
        let pick = |position, retry| ReadyDelivery {
            position,
            event: Arc::new(queue::conformance::event("E", "a")),
            retry,
            matched: None,
        };
        let retry = Retry {
            redrive: 0,
            attempt: 3,
            deaths: 0,
            asks_match: false,
            asked: 0,
        };
        assert_eq!(claim(&store, 1, &pick(1, Some(retry))), Ok(Some(570)));
        assert_eq!(claim(&store, 1, &pick(2, None)), Ok(Some(9000)));
        let rows: Vec<(i64, i64, i64)> = sql
            .prepare("SELECT first_at, at, clock_set FROM deliveries ORDER BY position")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(rows, [(570, 9000, 2), (9000, 9000, 2)], "they follow once");
    }
}
