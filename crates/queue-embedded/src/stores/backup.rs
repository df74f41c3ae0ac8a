//! A backup of a queue's file, made beside the process that serves it.

use std::path::Path;

use event_model::{Clock, Timestamp};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use sqlite_file::rows::{from_nanos, nanos, unsigned};
use sqlite_file::{CopyError, meta, set_meta};

use crate::file::redrives;
use crate::file::schema::QUEUE;
use crate::stores::connections::contains_table;

/// What a backup of a queue holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Events with their bodies.
    pub events: u64,
    /// Deliveries that wait for an attempt, or were being attempted.
    pub waiting: u64,
    /// Deliveries that no further attempt can help.
    pub dead_letters: u64,
    /// Genuine webhooks that are not events.
    pub quarantined: u64,
    /// Refused webhooks.
    pub refused: u64,
    /// The time at which the newest event was received.
    pub newest: Option<Timestamp>,
}

/// Copies the queue's file at `from`, as it is at one moment, to `to`.
///
/// The copy is ready to be served: what was in flight at the moment waits for its attempt again.
/// Each time that a copy of it is first served, numbers of redrives go on from the time then, so
/// that no delivery has an idempotency key that another had, in the original or in another copy.
///
/// # Errors
/// If the file can't be read, or the copy not written; there is no copy then.
pub fn backup(from: &Path, to: &Path, clock: &dyn Clock) -> Result<BackupReport, CopyError> {
    let now = nanos(clock.now());
    sqlite_file::copy(from, &QUEUE, to, |sql| {
        prepare(sql, now)?;
        report(sql)
    })
}

/// Set in a copy that nobody has served.
const UNSERVED: &str = "unserved_copy";

/// Says in the copy that the processes of the original have ended: none of them runs on the copy,
/// and nobody is to look for them.
const CLOSE_PROCESSES: &str = "
UPDATE marks SET value = CAST(json_set(CAST(value AS TEXT), '$.isClosed', json('true')) AS BLOB)
WHERE name >= 'process.' AND name < 'process/' AND json_valid(CAST(value AS TEXT))";

fn prepare(sql: &Connection, now: i64) -> rusqlite::Result<()> {
    set_meta(sql, UNSERVED, 1)?;
    if contains_table(sql, "marks")? {
        sql.execute(CLOSE_PROCESSES, [])?;
    }
    sql.execute(
        "UPDATE deliveries SET in_flight = 0, alone = 0, attempt = attempt - 1, at = ?1 WHERE in_flight = 1",
        params![now],
    )
    .map(drop)
}

/// Makes a copy that is served for the first time another file than its original, and than what
/// else was copied from it: the positions and numbers that it gives from now on are its own.
pub(crate) fn begin_serving(sql: &mut Connection, now: i64) -> rusqlite::Result<()> {
    if meta::<i64>(sql, UNSERVED)?.is_none() {
        return Ok(());
    }
    // A command may be writing: whoever has read first does not wait for it.
    let transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
    set_meta(
        &transaction,
        "epoch",
        format!("{:016x}", fastrand::u64(1..)),
    )?;
    redrives::count_on(&transaction, now)?;
    transaction.execute("DELETE FROM meta WHERE key = ?1", [UNSERVED])?;
    transaction.commit()
}

fn report(sql: &Connection) -> rusqlite::Result<BackupReport> {
    let count = |text: &str| sql.query_row(text, [], |row| row.get(0)).map(unsigned);
    let newest = "SELECT received_at FROM events ORDER BY position DESC LIMIT 1";
    let newest: Option<i64> = sql.query_row(newest, [], |row| row.get(0)).optional()?;
    Ok(BackupReport {
        events: count("SELECT bodies FROM body_count")?,
        waiting: count("SELECT coalesce(sum(waiting + in_flight), 0) FROM routes")?,
        dead_letters: count("SELECT coalesce(sum(dead), 0) FROM dead_counts")?,
        quarantined: count("SELECT count(*) FROM quarantine")?,
        refused: count("SELECT count(*) FROM refused")?,
        newest: newest.and_then(from_nanos),
    })
}
