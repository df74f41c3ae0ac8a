//! Tables and rows of a spool's file.

use event_model::{BUCKETS, Event, EventId, RestoreError, Timestamp};
use queue::Position;
use rusqlite::{Connection, OptionalExtension, params};
use sqlite_file::rows::{
    event, from_nanos, nanos, packed, position, signature_bytes, signed, time, unsigned,
};

use crate::store::values::{AcknowledgedRow, SpoolState, UnconfirmedRow};

pub(crate) const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

-- Written once: what becomes of a row is in the narrow tables beside it, so that
-- no body is written twice. A row of none of these is set aside.
CREATE TABLE spooled (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    key TEXT NOT NULL,              -- `<name>#<digest>`
    algorithm TEXT NOT NULL,
    signature BLOB NOT NULL,
    received_at INTEGER NOT NULL,   -- Unix time in nanoseconds, as all times here
    trace TEXT,
    bucket INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE unsent (row INTEGER PRIMARY KEY, bucket INTEGER NOT NULL);
CREATE TABLE acknowledged (
    row INTEGER PRIMARY KEY,
    epoch TEXT NOT NULL,            -- where the queue says it is
    position INTEGER NOT NULL,
    at INTEGER NOT NULL             -- when it said so
);
CREATE INDEX acknowledged_by_time ON acknowledged (at, row);
";

/// Largest number of bytes of bodies read at once.
pub(crate) const MAX_READ: usize = 4 << 20;

/// Bytes that a row takes beside its body, at least; a measurement corrects them.
const OVERHEAD: u64 = 200;

/// True for a row of `spooled` that is unsendable.
const IS_ASIDE: &str = "NOT EXISTS (SELECT 1 FROM unsent u WHERE u.row = spooled.row)
    AND NOT EXISTS (SELECT 1 FROM acknowledged a WHERE a.row = spooled.row)";

const EVENT: &str = "id, key, algorithm, signature, received_at, trace, body";

/// Bytes that an event takes.
pub(crate) fn weight(event: &Event) -> u64 {
    event.body().len() as u64 + OVERHEAD
}

/// Whether an event is in the file already, and needs no room.
pub(crate) fn contains_event(sql: &Connection, event: &Event) -> rusqlite::Result<bool> {
    sql.prepare_cached("SELECT 1 FROM spooled WHERE id = ?1")?
        .exists([event.id().as_bytes()])
}

/// Stores an event; returns its row, and whether it was there before.
pub(crate) fn keep(sql: &Connection, event: &Event) -> rusqlite::Result<(i64, bool)> {
    let stored = event.stored();
    let inserted = sql
        .prepare_cached(
            "INSERT INTO spooled (id, key, algorithm, signature, received_at, trace, bucket, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            event.id().as_bytes(),
            stored.key.to_text(),
            stored.proof.as_str(),
            signature_bytes(&stored.signature),
            nanos(stored.received_at),
            stored.trace_text(),
            event.bucket(),
            &stored.body[..],
        ])?;
    if inserted == 1 {
        let row = sql.last_insert_rowid();
        sql.prepare_cached("INSERT INTO unsent (row, bucket) VALUES (?1, ?2)")?
            .execute(params![row, event.bucket()])?;
        return Ok((row, false));
    }
    let (known, is_aside): (i64, bool) = sql
        .prepare_cached(&format!(
            "SELECT row, {IS_ASIDE} FROM spooled WHERE id = ?1"
        ))?
        .query_row([event.id().as_bytes()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    if !is_aside {
        return Ok((known, true));
    }
    // The earlier row was damaged or refused: the event that came now is good, and comes last.
    remove(sql, &[known])?;
    keep(sql, event)
}

/// Records the positions that the queue has acknowledged. An unsendable row stays so.
pub(crate) fn acknowledge(
    sql: &Connection,
    rows: &[AcknowledgedRow],
    now: i64,
) -> rusqlite::Result<()> {
    let mut sent = sql.prepare_cached("DELETE FROM unsent WHERE row = ?1")?;
    let mut first = sql.prepare_cached(
        "INSERT INTO acknowledged (row, epoch, position, at) VALUES (?1, ?2, ?3, ?4)",
    )?;
    let mut again = sql.prepare_cached(
        "UPDATE acknowledged SET epoch = ?2, position = ?3, at = ?4 WHERE row = ?1",
    )?;
    rows.iter().try_for_each(|at| {
        let note = if sent.execute([at.row])? == 1 {
            &mut first
        } else {
            &mut again
        };
        note.execute(params![at.row, at.epoch, packed(at.position), now])
            .map(drop)
    })
}

pub(crate) fn remove(sql: &Connection, rows: &[i64]) -> rusqlite::Result<()> {
    let mut statement = sql.prepare_cached("DELETE FROM spooled WHERE row = ?1")?;
    rows.iter().try_for_each(|row| {
        mark_unsendable(sql, *row)?;
        statement.execute([row]).map(drop)
    })
}

/// Marks a row as unsendable: it is then neither unsent nor acknowledged.
pub(crate) fn mark_unsendable(sql: &Connection, row: i64) -> rusqlite::Result<()> {
    sql.prepare_cached("DELETE FROM unsent WHERE row = ?1")?
        .execute([row])?;
    sql.prepare_cached("DELETE FROM acknowledged WHERE row = ?1")?
        .execute([row])
        .map(drop)
}

pub(crate) fn remove_body(sql: &Connection, id: u64) -> rusqlite::Result<()> {
    sql.execute("DELETE FROM quarantine WHERE id = ?1", [signed(id)])
        .map(drop)
}

pub(crate) fn unsent(
    sql: &Connection,
    lane: u8,
    lanes: u8,
    after: i64,
    limit: usize,
) -> rusqlite::Result<ReadableRow> {
    debug_assert!(BUCKETS.is_multiple_of(lanes));
    let text = format!(
        "SELECT u.row, {EVENT} FROM unsent u JOIN spooled USING (row)
         WHERE u.row > ?1 AND u.bucket % ?2 = ?3 ORDER BY u.row LIMIT ?4"
    );
    read(
        sql.prepare_cached(&text)?
            .query(params![after, lanes, lane, signed(limit as u64)])?,
    )
}

/// The first row from `row` on.
pub(crate) fn next(sql: &Connection, row: i64) -> rusqlite::Result<Option<i64>> {
    sql.prepare_cached("SELECT min(row) FROM spooled WHERE row >= ?1")?
        .query_row([row], |row| row.get(0))
}

/// The highest row.
pub(crate) fn last(sql: &Connection) -> rusqlite::Result<i64> {
    sql.query_row("SELECT ifnull(max(row), 0) FROM spooled", [], |row| {
        row.get(0)
    })
}

/// Which rows these are is asked of an index, since the rows themselves have the bodies: a full spool
/// would be read whole at each start, while nothing is written.
fn retry_text() -> String {
    format!(
        "INSERT INTO unsent (row, bucket) SELECT row, bucket FROM spooled
         WHERE row IN (SELECT row FROM spooled WHERE {IS_ASIDE})"
    )
}

/// Makes unsendable rows unsent again.
pub(crate) fn retry_unsendable(sql: &Connection) -> rusqlite::Result<()> {
    sql.execute(&retry_text(), []).map(drop)
}

/// Events that were read, and rows that could not be.
#[derive(Debug, Default)]
pub(crate) struct ReadableRow {
    pub(crate) events: Vec<(i64, Event)>,
    /// Rows that can't be read as an event.
    pub(crate) damaged: Vec<i64>,
}

fn read(mut rows: rusqlite::Rows<'_>) -> rusqlite::Result<ReadableRow> {
    let mut readable = ReadableRow::default();
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let number = row.get(0)?;
        match event(row, 1)? {
            Ok(event) => {
                bytes += event.body().len();
                readable.events.push((number, event));
            }
            Err(error) => {
                tracing::error!(row = number, %error, "a spooled event is damaged: set aside");
                readable.damaged.push(number);
            }
        }
        if bytes > MAX_READ {
            break;
        }
    }
    Ok(readable)
}

/// The event of a row, whatever its state.
pub(crate) fn one(
    sql: &Connection,
    row: i64,
) -> rusqlite::Result<Option<Result<Event, RestoreError>>> {
    let text = format!("SELECT {EVENT} FROM spooled WHERE row = ?1");
    sql.prepare_cached(&text)?
        .query_row([row], |row| event(row, 0))
        .optional()
}

pub(crate) fn unconfirmed(
    sql: &Connection,
    before: Timestamp,
    after: (i64, i64),
    limit: usize,
) -> rusqlite::Result<Vec<UnconfirmedRow>> {
    sql.prepare_cached(
        "SELECT a.row, id, epoch, position, at FROM acknowledged a JOIN spooled USING (row)
         WHERE at <= ?1 AND (at, a.row) > (?2, ?3) ORDER BY at, a.row LIMIT ?4",
    )?
    .query_map(
        params![nanos(before), after.0, after.1, signed(limit as u64)],
        |row| {
            let id: Vec<u8> = row.get(1)?;
            let id = EventId::from_bytes(&id)
                .unwrap_or_else(|_| EventId::of(event_model::Environment::Sandbox, b""));
            // An invalid position finds nothing, so the event is sent again.
            let position = position(row.get(3)?).unwrap_or_default();
            let at = AcknowledgedRow {
                row: row.get(0)?,
                epoch: row.get(2)?,
                position,
            };
            Ok(UnconfirmedRow {
                id,
                place: (row.get(4)?, at.row),
                at,
                acknowledged_at: time(row, 4)?,
            })
        },
    )?
    .collect()
}

/// The highest acknowledged position of an epoch, and whether there are rows of another one. Only
/// the newest rows are searched for the highest, and the oldest one is checked for its epoch:
/// positions rise with time, and epochs follow each other.
pub(crate) fn acknowledged_in(sql: &Connection, epoch: &str) -> rusqlite::Result<(Position, bool)> {
    sql.prepare_cached(
        "SELECT ifnull((SELECT max(position) FROM (
                    SELECT epoch, position FROM acknowledged ORDER BY at DESC, row DESC LIMIT 1024
                ) WHERE epoch = ?1), 0),
                ifnull((SELECT epoch <> ?1 FROM acknowledged ORDER BY at, row LIMIT 1), false)",
    )?
    .query_row([epoch], |row| {
        Ok((position(row.get(0)?).unwrap_or_default(), row.get(1)?))
    })
}

/// Number of unsent events, and the arrival of the oldest. The table is narrow, so this may be
/// asked often.
pub(crate) fn backlog(sql: &Connection) -> rusqlite::Result<(u64, Option<Timestamp>)> {
    sql.query_row(
        "SELECT (SELECT count(*) FROM unsent),
                (SELECT received_at FROM spooled WHERE row = (SELECT min(row) FROM unsent))",
        [],
        |row| {
            Ok((
                unsigned(row.get(0)?),
                row.get::<_, Option<i64>>(1)?.and_then(from_nanos),
            ))
        },
    )
}

/// The time up to which everything that arrived has left the file; `None` if there are more rows
/// than can be examined every few seconds. Salvaged events have newer rows than their times
/// suggest.
pub(crate) fn sent_up_to(
    sql: &Connection,
    now: Timestamp,
    most: u64,
) -> rusqlite::Result<Option<Timestamp>> {
    let unsent = unsigned(sql.query_row("SELECT count(*) FROM unsent", [], |row| row.get(0))?);
    if unsent > most {
        return Ok(None);
    }
    let oldest: Option<i64> = sql.query_row(
        "SELECT min(received_at) FROM unsent JOIN spooled USING (row)",
        [],
        |row| row.get(0),
    )?;
    Ok(Some(
        oldest
            .and_then(from_nanos)
            .map_or(now, |oldest| oldest.min(now)),
    ))
}

pub(crate) fn state(sql: &Connection) -> rusqlite::Result<SpoolState> {
    let bodies: (i64, i64) = sql.query_row(
        "SELECT count(*), ifnull(sum(length(body)), 0) FROM quarantine",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    sql.query_row(
        "SELECT (SELECT count(*) FROM unsent), (SELECT count(*) FROM acknowledged),
                count(*), ifnull(sum(length(body)), 0),
                (SELECT received_at FROM spooled WHERE row = (SELECT min(row) FROM unsent)) FROM spooled",
        [],
        |row| {
            let number = |column| row.get(column).map(unsigned);
            let unsent = number(0)?;
            let unconfirmed = number(1)?;
            let all = number(2)?;
            Ok(SpoolState {
                unsent,
                unconfirmed,
                set_aside: all.saturating_sub(unsent + unconfirmed),
                quarantined: unsigned(bodies.0),
                bytes: number(3)? + all * OVERHEAD + unsigned(bodies.1),
                oldest_unsent: row.get::<_, Option<i64>>(4)?.and_then(from_nanos),
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_found_without_reading_bodies() {
        let sql = Connection::open_in_memory().unwrap();
        sql.execute_batch(TABLES).unwrap();
        let plan: Vec<String> = sql
            .prepare(&format!("EXPLAIN QUERY PLAN {}", retry_text()))
            .unwrap()
            .query_map([], |row| row.get(3))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        let scans: Vec<_> = plan
            .iter()
            .filter(|step| step.starts_with("SCAN"))
            .collect();
        assert!(
            matches!(scans[..], [scan] if scan.contains("USING COVERING INDEX")),
            "{plan:?}"
        );
    }
}
