use event_model::{BUCKETS, Event, EventId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use crate::file::rows::{event, from_nanos, nanos, signature_bytes, signed, unsigned};
use crate::spool::{Acknowledged, SpoolState, Unconfirmed};

pub(crate) const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE spooled (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    key TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    signature BLOB NOT NULL,
    received_at INTEGER NOT NULL,   -- Unix time in nanoseconds, as all times here
    trace TEXT,
    bucket INTEGER NOT NULL,
    state INTEGER NOT NULL,         -- 0 unsent, 1 acknowledged, 2 set aside
    epoch TEXT,                     -- where the queue says it is
    position INTEGER,
    acknowledged_at INTEGER,
    body BLOB NOT NULL
);
CREATE INDEX spooled_unsent ON spooled (row) WHERE state = 0;
CREATE INDEX spooled_unconfirmed ON spooled (acknowledged_at, row) WHERE state = 1;
CREATE INDEX spooled_positions ON spooled (epoch, position) WHERE state = 1;

CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE,
    body BLOB NOT NULL,
    algorithm TEXT NOT NULL,
    key TEXT NOT NULL,
    signature BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    reason TEXT NOT NULL
);
";

/// The state of what can't be sent.
const SET_ASIDE: i64 = 2;

/// Most bytes of bodies read at once.
const MAX_READ: usize = 4 << 20;

/// What a row takes beside its body, at least: weighing corrects it.
const OVERHEAD: u64 = 200;

const EVENT: &str = "id, key, algorithm, signature, received_at, trace, body";

/// Bytes that an event takes.
pub(crate) fn weight(event: &Event) -> u64 {
    event.body().len() as u64 + OVERHEAD
}

/// Keeps an event, and says its row, and whether it was there.
pub(crate) fn keep(sql: &Connection, event: &Event) -> rusqlite::Result<(i64, bool)> {
    let stored = event.stored();
    let inserted = sql
        .prepare_cached(
            "INSERT INTO spooled (id, key, algorithm, signature, received_at, trace, bucket, state, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8) ON CONFLICT (id) DO NOTHING",
        )?
        .execute(params![
            event.id().as_bytes(),
            stored.key.to_string(),
            stored.algorithm.as_str(),
            signature_bytes(&stored.signature),
            nanos(stored.received_at),
            stored.trace.map(|trace| trace.to_string()),
            event.bucket(),
            &stored.body[..],
        ])?;
    if inserted == 1 {
        return Ok((sql.last_insert_rowid(), false));
    }
    let (known, state): (i64, i64) = sql
        .prepare_cached("SELECT row, state FROM spooled WHERE id = ?1")?
        .query_row([event.id().as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if state != SET_ASIDE {
        return Ok((known, true));
    }
    // Damaged, or refused then: what came now is good, and comes last.
    remove(sql, &[known])?;
    keep(sql, event)
}

/// Notes where the queue says that rows are.
pub(crate) fn acknowledge(sql: &Connection, rows: &[Acknowledged], now: i64) -> rusqlite::Result<()> {
    let mut statement = sql.prepare_cached(
        "UPDATE spooled SET state = 1, epoch = ?2, position = ?3, acknowledged_at = ?4 WHERE row = ?1",
    )?;
    rows.iter()
        .try_for_each(|at| statement.execute(params![at.row, at.epoch, signed(at.position), now]).map(drop))
}

pub(crate) fn remove(sql: &Connection, rows: &[i64]) -> rusqlite::Result<()> {
    let mut statement = sql.prepare_cached("DELETE FROM spooled WHERE row = ?1")?;
    rows.iter().try_for_each(|row| statement.execute([row]).map(drop))
}

pub(crate) fn put_aside(sql: &Connection, row: i64) -> rusqlite::Result<()> {
    sql.execute("UPDATE spooled SET state = 2 WHERE row = ?1", [row]).map(drop)
}

pub(crate) fn remove_body(sql: &Connection, id: u64) -> rusqlite::Result<()> {
    sql.execute("DELETE FROM quarantine WHERE id = ?1", [signed(id)]).map(drop)
}

pub(crate) fn unsent(
    sql: &Connection,
    lane: u8,
    lanes: u8,
    after: i64,
    limit: usize,
) -> rusqlite::Result<Vec<(i64, Event)>> {
    debug_assert!(BUCKETS.is_multiple_of(lanes));
    let text = format!(
        "SELECT row, {EVENT} FROM spooled WHERE state = 0 AND row > ?1 AND bucket % ?2 = ?3 ORDER BY row LIMIT ?4"
    );
    loop {
        let (found, damaged) =
            read(sql.prepare_cached(&text)?.query(params![after, lanes, lane, signed(limit as u64)])?)?;
        damaged.iter().try_for_each(|row| put_aside(sql, *row))?;
        // Nothing but damage is not the end.
        if !found.is_empty() || damaged.is_empty() {
            return Ok(found);
        }
    }
}

/// The event of a row of any state, for files that were set aside.
pub(crate) fn any(sql: &Connection, row: i64) -> rusqlite::Result<Option<Event>> {
    one(sql, row)
}

/// The highest row.
pub(crate) fn last(sql: &Connection) -> rusqlite::Result<i64> {
    sql.query_row("SELECT ifnull(max(row), 0) FROM spooled", [], |row| row.get(0))
}

/// What is set aside is tried once more.
pub(crate) fn retry_aside(sql: &Connection) -> rusqlite::Result<()> {
    sql.execute("UPDATE spooled SET state = 0 WHERE state = ?1", [SET_ASIDE]).map(drop)
}

/// A clock that was ahead must not keep rows for years.
pub(crate) fn mend_clock(sql: &Connection, now: i64) -> rusqlite::Result<()> {
    sql.execute("UPDATE spooled SET acknowledged_at = ?1 WHERE state = 1 AND acknowledged_at > ?1", [now])
        .map(drop)
}

/// Events, and rows that can't be read as one.
type Readable = (Vec<(i64, Event)>, Vec<i64>);

/// Events that can be read, and rows that can't.
fn read(mut rows: rusqlite::Rows<'_>) -> rusqlite::Result<Readable> {
    let (mut found, mut damaged, mut bytes) = (Vec::new(), Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let number = row.get(0)?;
        match event(row, 1)? {
            Ok(event) => {
                bytes += event.body().len();
                found.push((number, event));
            }
            Err(error) => {
                tracing::error!(row = number, %error, "a spooled event is damaged: set aside");
                damaged.push(number);
            }
        }
        if bytes > MAX_READ {
            break;
        }
    }
    Ok((found, damaged))
}

pub(crate) fn one(sql: &Connection, row: i64) -> rusqlite::Result<Option<Event>> {
    let text = format!("SELECT {EVENT} FROM spooled WHERE row = ?1");
    let found = sql.prepare_cached(&text)?.query_row([row], |row| event(row, 0)).optional()?;
    Ok(found.and_then(Result::ok))
}

pub(crate) fn unconfirmed(
    sql: &Connection,
    before: Timestamp,
    after: (i64, i64),
    limit: usize,
) -> rusqlite::Result<Vec<Unconfirmed>> {
    sql.prepare_cached(
        "SELECT row, id, epoch, position, acknowledged_at FROM spooled
         WHERE state = 1 AND acknowledged_at <= ?1 AND (acknowledged_at, row) > (?2, ?3)
         ORDER BY acknowledged_at, row LIMIT ?4",
    )?
    .query_map(params![nanos(before), after.0, after.1, signed(limit as u64)], |row| {
        let id: Vec<u8> = row.get(1)?;
        let id =
            EventId::from_bytes(&id).unwrap_or_else(|_| EventId::of(event_model::Environment::Sandbox, b""));
        let position = unsigned(row.get(3)?);
        let at = Acknowledged { row: row.get(0)?, epoch: row.get(2)?, position };
        Ok(Unconfirmed { id, place: (row.get(4)?, at.row), at })
    })?
    .collect()
}

pub(crate) fn acknowledged_in(sql: &Connection, epoch: &str) -> rusqlite::Result<(u64, bool)> {
    sql.prepare_cached(
        "SELECT ifnull((SELECT max(position) FROM spooled WHERE state = 1 AND epoch = ?1), 0),
                EXISTS (SELECT 1 FROM spooled WHERE state = 1 AND epoch < ?1)
             OR EXISTS (SELECT 1 FROM spooled WHERE state = 1 AND epoch > ?1)",
    )?
    .query_row([epoch], |row| Ok((unsigned(row.get(0)?), row.get(1)?)))
}

pub(crate) fn state(sql: &Connection) -> rusqlite::Result<SpoolState> {
    let bodies: (i64, i64) =
        sql.query_row("SELECT count(*), ifnull(sum(length(body)), 0) FROM quarantine", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    sql.query_row(
        "SELECT count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1),
                count(*) FILTER (WHERE state = 2), ifnull(sum(length(body)), 0), count(*),
                min(received_at) FILTER (WHERE state = 0) FROM spooled",
        [],
        |row| {
            let number = |column| row.get(column).map(unsigned);
            Ok(SpoolState {
                unsent: number(0)?,
                unconfirmed: number(1)?,
                set_aside: number(2)?,
                quarantined: unsigned(bodies.0),
                bytes: number(3)? + number(4)? * OVERHEAD + unsigned(bodies.1),
                oldest_unsent: row.get::<_, Option<i64>>(5)?.and_then(from_nanos),
            })
        },
    )
}
