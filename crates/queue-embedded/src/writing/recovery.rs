//! Recovery of attempts that the last process left unfinished, and what else a process writes
//! before all others.

use std::time::Duration;

use fail::fail_point;
use queue::{DeadReason, Outcome};
use rusqlite::{Connection, params};
use sqlite_file::rows::{signed, unsigned};
use sqlite_file::{meta, set_meta};

use crate::file::schema::{COMPLETE_SINCE, WORKING, last_position};
use crate::shared::LeaseKey;
use crate::writing::clock_set::note_since_last_process;
use crate::writing::job::Store;
use crate::writing::queue_time::QueueTime;
use crate::writing::settle::{ended, record, remove, uncount, wait, write_dead_letter};
use crate::writing::turns;

/// Takes the queue over from the last process, in a transaction: before this, nothing else may be
/// written.
pub(crate) fn take_over(sql: &Connection, time: QueueTime, now: i64) -> rusqlite::Result<()> {
    fail_point!("take_over.full", |_| {
        let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        Err(rusqlite::Error::SqliteFailure(full, None))
    });
    // First, since what is recovered is written by the time of now.
    note_since_last_process(sql, time, now)?;
    recover(sql, time, now)?;
    // The last process's report on its routes is out of date.
    set_meta(sql, WORKING, "[]")?;
    // Nothing is known about the time before the file existed.
    if meta::<i64>(sql, COMPLETE_SINCE)?.is_none() {
        set_meta(sql, COMPLETE_SINCE, now)?;
    }
    Ok(())
}

/// Recovers the attempts that the last process left unfinished.
///
/// A delivery that ran exclusively when the process crashed is the cause, and becomes a dead
/// letter. Every other waits for its next attempt, with one more crash counted.
fn recover(sql: &Connection, time: QueueTime, now: i64) -> rusqlite::Result<()> {
    let left = left_in_flight(sql)?;
    let mut last = last_position(sql)?;
    let store = Store {
        sql,
        last: &mut last,
        now,
        age: time.now(),
    };
    for left in left {
        resume(&store, &left)?;
    }
    turns::clear(sql)
}

/// Those of forgotten routes are being removed. A million may be waiting, so they have an index.
const LEFT_IN_FLIGHT: &str = "SELECT d.route, d.position, d.redrive, d.attempt, d.at, d.alone
     FROM deliveries d INDEXED BY deliveries_in_flight
     WHERE d.in_flight = 1 AND EXISTS (SELECT 1 FROM routes r WHERE r.id = d.route)";

struct InterruptedAttempt {
    key: LeaseKey,
    attempt: u32,
    since: i64,
    alone: bool,
}

fn left_in_flight(sql: &Connection) -> rusqlite::Result<Vec<InterruptedAttempt>> {
    sql.prepare(LEFT_IN_FLIGHT)?
        .query_map([], |row| {
            let key = LeaseKey {
                route: row.get(0)?,
                position: unsigned(row.get(1)?),
                redrive: row.get(2)?,
            };
            Ok(InterruptedAttempt {
                key,
                attempt: row.get(3)?,
                since: row.get(4)?,
                alone: row.get(5)?,
            })
        })?
        .collect()
}

fn resume(store: &Store<'_>, left: &InterruptedAttempt) -> rusqlite::Result<()> {
    let key = left.key;
    if turns::is_waiting(store.sql, key, left.attempt)? {
        return return_unbegun(store, left);
    }
    record(
        store,
        key,
        left.attempt,
        &ended(left.since, store.now, Outcome::Died),
    )?;
    if !left.alone {
        return wait_with_one_more_death(store, key);
    }
    tracing::error!(
        position = key.position,
        "an event was alone in flight when the process died: it is a dead letter now"
    );
    let why = "the process died while this event was attempted alone";
    write_dead_letter(store, key, left.attempt, DeadReason::Crash, Some(why))?;
    remove(store, key)
}

/// An attempt that waited for its turn had not begun: it is not counted.
fn return_unbegun(store: &Store<'_>, left: &InterruptedAttempt) -> rusqlite::Result<()> {
    let returned = ended(left.since, store.now, Outcome::Returned);
    record(store, left.key, left.attempt, &returned)?;
    wait(store, left.key, Duration::ZERO, false)?;
    uncount(store, left.key)
}

fn wait_with_one_more_death(store: &Store<'_>, key: LeaseKey) -> rusqlite::Result<()> {
    store
        .sql
        .execute(
            "UPDATE deliveries SET in_flight = 0, deaths = deaths + 1, at = ?4
             WHERE route = ?1 AND position = ?2 AND redrive = ?3",
            params![key.route, signed(key.position), key.redrive, store.now],
        )
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::schema::plan;

    #[test]
    fn deliveries_that_wait_are_not_scanned_for_those_that_were_in_flight() {
        assert_eq!(
            plan(LEFT_IN_FLIGHT)[0],
            "SCAN d USING INDEX deliveries_in_flight"
        );
    }
}
