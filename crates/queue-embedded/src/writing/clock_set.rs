//! A machine's clock that is set. If it is set back, waiting deliveries would wait longer by the
//! same time; if it is set ahead, they would seem to have been tried for that time.
//!
//! That it was set is a row of `clock_sets`, and those in flight follow in the same transaction. A
//! million may wait: they follow a few at a time, and each has the number of the last row that it
//! follows, so that neither a claim nor a crash in between makes one follow twice.

use fail::fail_point;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use rustix::time::{ClockId, clock_gettime};
use sqlite_file::{lock, meta};

use crate::file::schema::CLOCK;
use crate::shared::Shared;
use crate::writing::queue_time::{LONGEST_AWAY, QueueTime};

/// Smallest difference that shows that the clock was set, in nanoseconds; corrections are
/// smaller.
const SET: i64 = 2_000_000_000;

/// A reading of two clocks: the Unix time, and how long the machine had run by then, including
/// suspension (`CLOCK_BOOTTIME`); both in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockReading {
    clock: i64,
    running: i64,
}

impl ClockReading {
    pub(crate) fn now(clock: i64) -> Self {
        let time = clock_gettime(ClockId::Boottime);
        Self {
            clock,
            running: time
                .tv_sec
                .saturating_mul(1_000_000_000)
                .saturating_add(time.tv_nsec),
        }
    }

    /// Returns how the clock was set since `before`, if it was.
    pub(crate) fn set_since(self, before: Self) -> Option<ClockSet> {
        let ran = self.running.saturating_sub(before.running);
        let ahead = self.clock.saturating_sub(before.clock.saturating_add(ran));
        if ahead > SET {
            return Some(ClockSet::Ahead(ahead));
        }
        (ahead < -SET).then(|| ClockSet::Back(-ahead))
    }
}

/// A change of the clock by hand or by the network, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClockSet {
    Back(i64),
    Ahead(i64),
}

impl ClockSet {
    /// What is added to the time before which a delivery waits. If the clock was set ahead, that
    /// stays as it is: they are due earlier, which harms nothing.
    fn due(self) -> i64 {
        match self {
            Self::Back(by) => -by,
            Self::Ahead(_) => 0,
        }
    }

    /// What is added to the time of an attempt.
    fn tried(self) -> i64 {
        match self {
            Self::Back(by) => -by,
            Self::Ahead(by) => by,
        }
    }
}

/// Records that the clock was set, in a transaction. Deliveries in flight follow at once: they are
/// few, and what becomes of them is written by the new time. The queue's time is recorded as well,
/// or the next process would have them follow again.
pub(crate) fn note(
    sql: &Connection,
    set: ClockSet,
    time: QueueTime,
    now: i64,
) -> rusqlite::Result<()> {
    sql.execute(
        "INSERT INTO clock_sets (due, tried) VALUES (?1, ?2)",
        [set.due(), set.tried()],
    )?;
    sql.execute(IN_FLIGHT_FOLLOW, [set.tried()])?;
    time.note(sql, now)?;
    match set {
        ClockSet::Back(by) => tracing::warn!(
            seconds = by / 1_000_000_000,
            "the clock was set back: what waits waits no longer for it"
        ),
        ClockSet::Ahead(by) => tracing::warn!(
            seconds = by / 1_000_000_000,
            "the clock was set ahead: that does not count as time for which deliveries were tried"
        ),
    }
    Ok(())
}

const IN_FLIGHT_FOLLOW: &str = "UPDATE deliveries INDEXED BY deliveries_in_flight
     SET at = at + ?1, first_at = first_at + ?1, clock_set = (SELECT max(id) FROM clock_sets)
     WHERE in_flight = 1";

/// Notes at the start, in a transaction, how the clock was set since the last process wrote, as far as that can be
/// known: nobody knows how long the machine was off. Nothing must wait longer than counted from
/// the last write, and beyond an hour the absence is no time for which anything was tried. `time`
/// goes on from the last record of that process.
pub(crate) fn note_since_last_process(
    sql: &Connection,
    time: QueueTime,
    now: i64,
) -> rusqlite::Result<()> {
    let Some(written) = meta::<i64>(sql, CLOCK)? else {
        return Ok(());
    };
    let away = now.saturating_sub(written);
    let set = if away < -SET {
        ClockSet::Back(away.saturating_neg())
    } else if away.saturating_sub(LONGEST_AWAY) > SET {
        ClockSet::Ahead(away - LONGEST_AWAY)
    } else {
        return Ok(());
    };
    note(sql, set, time, now)
}

/// Number of rows that follow in one transaction, for which a publish waits a few milliseconds.
const CHUNK: i64 = 500;

/// Primary key of a delivery: route, position, redrive.
type Place = (i64, i64, i64);

const START: Place = (i64::MIN, 0, 0);

/// The pass in which waiting deliveries follow the clock.
#[derive(Debug)]
pub(crate) struct FollowPass {
    /// The key from which it goes on; `None` if all have followed.
    after: Option<Place>,
}

impl FollowPass {
    /// The pass of a process that starts: the last one may not have come to its end.
    pub(crate) fn new() -> Self {
        Self { after: Some(START) }
    }

    /// Begins from the start, since the clock was set.
    pub(crate) fn restart(&mut self) {
        self.after = Some(START);
    }

    /// Makes some deliveries follow; `true` if there may be more.
    pub(crate) fn follow(
        &mut self,
        sql: &mut Connection,
        shared: &Shared,
    ) -> rusqlite::Result<bool> {
        let Some(after) = self.after else {
            return Ok(false);
        };
        if !has_to_follow(sql)? {
            self.after = None;
            return Ok(false);
        }
        let passed = follow_some(sql, after)?;
        fail_point!("clock_set.after");
        self.after = passed;
        // Some may be due now.
        lock(&shared.routes)
            .iter()
            .for_each(|route| route.waits_until(i64::MIN));
        shared.wake_tail_reader();
        Ok(passed.is_some())
    }
}

fn has_to_follow(sql: &Connection) -> rusqlite::Result<bool> {
    sql.prepare_cached("SELECT 1 FROM clock_sets WHERE due <> 0 OR tried <> 0")?
        .exists([])
}

/// Makes a chunk follow, and returns its last key; `None` for the last one, after which nothing is
/// left to follow.
fn follow_some(sql: &mut Connection, after: Place) -> rusqlite::Result<Option<Place>> {
    // A command may be writing: whoever has read first does not wait for it.
    let transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let last = transaction
        .prepare_cached(LAST_OF_CHUNK)?
        .query_row(params![after.0, after.1, after.2, CHUNK - 1], place)
        .optional()?;
    let up_to = last.unwrap_or((i64::MAX, i64::MAX, i64::MAX));
    transaction.prepare_cached(FOLLOW)?.execute(params![
        after.0, after.1, after.2, up_to.0, up_to.1, up_to.2
    ])?;
    if last.is_none() {
        transaction.execute_batch(
            "DELETE FROM clock_sets WHERE id < (SELECT max(id) FROM clock_sets);
             UPDATE clock_sets SET due = 0, tried = 0",
        )?;
    }
    transaction.commit()?;
    Ok(last)
}

const LAST_OF_CHUNK: &str = "SELECT route, position, redrive FROM deliveries
     WHERE (route, position, redrive) > (?1, ?2, ?3)
     ORDER BY route, position, redrive LIMIT 1 OFFSET ?4";

/// One that a command has written, or that was claimed, since the clock was set has followed.
const FOLLOW: &str = "UPDATE deliveries NOT INDEXED SET
        at = at + (SELECT sum(due) FROM clock_sets c WHERE c.id > deliveries.clock_set),
        first_at = first_at + (SELECT sum(tried) FROM clock_sets c WHERE c.id > deliveries.clock_set),
        clock_set = (SELECT max(id) FROM clock_sets)
     WHERE (route, position, redrive) > (?1, ?2, ?3) AND (route, position, redrive) <= (?4, ?5, ?6)
        AND clock_set < (SELECT max(id) FROM clock_sets)";

fn place(row: &Row<'_>) -> rusqlite::Result<Place> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::schema::plan;

    /// A million may wait.
    #[test]
    fn a_pass_searches_for_each_chunk() {
        for query in [LAST_OF_CHUNK, FOLLOW] {
            let plan = plan(query);
            assert!(
                plan[0]
                    .starts_with("SEARCH deliveries USING PRIMARY KEY ((route,position,redrive)>"),
                "{plan:?}"
            );
            assert!(!plan.join("\n").contains("deliveries_due"), "{plan:?}");
        }
        assert_eq!(
            plan(IN_FLIGHT_FOLLOW)[0],
            "SCAN deliveries USING INDEX deliveries_in_flight"
        );
    }
}
