use std::path::Path;
use std::time::{Duration, Instant};

use queue::Pause;
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::file::rows::{nanos, signed, unsigned};
use crate::file::{counters, refs};

/// The format of a queue's file. A newer one is refused, never guessed at.
pub(crate) const FORMAT: i64 = 7;

/// The key of `meta` under which the serving process says how its routes stand.
pub(crate) const WORKING: &str = "working";

/// The key of `meta` with the time since when every event that came is still here.
pub(crate) const COMPLETE_SINCE: &str = "complete_since";

/// The key of `meta` with the time at which something was last written, within a second.
pub(crate) const CLOCK: &str = "clock";

/// What the writer keeps of the file in memory, as SQLite's negative KiB:
/// enough for the index pages that new ids touch.
const CACHE_KIB: i64 = -4096;

/// The same for readers. They read what is new, once: a cache gains nothing.
const READ_CACHE_KIB: i64 = -256;

/// The log is moved into the file when it has so many bytes.
pub(crate) const CHECKPOINT_BYTES: u64 = 16 << 20;

/// How long to wait for another process that is writing (a redrive).
pub(crate) const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

-- What was admitted. `prefix` is the first 8 bytes of the id: an index on it
-- is a third of the size of one on the whole.
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    prefix INTEGER NOT NULL,
    id BLOB NOT NULL,
    key TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    signature BLOB NOT NULL,
    received_at INTEGER NOT NULL,   -- Unix time in nanoseconds, as all times here
    trace TEXT,
    entity_ref TEXT,
    root_entity_ref TEXT
);
CREATE INDEX events_by_prefix ON events (prefix);

-- What events are looked up by: digests of refs (file/refs.rs).
CREATE TABLE refs (position INTEGER PRIMARY KEY, entity INTEGER, root INTEGER, fluent INTEGER);

-- Apart from the rest, so that searching does not read them, and so that they
-- can go before the ids do.
CREATE TABLE bodies (position INTEGER PRIMARY KEY, body BLOB NOT NULL);


-- What a route has begun and not settled.
CREATE TABLE deliveries (
    route INTEGER NOT NULL,
    position INTEGER NOT NULL,
    redrive INTEGER NOT NULL,
    in_flight INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    at INTEGER NOT NULL,            -- in flight: since when; waiting: not before when
    deaths INTEGER NOT NULL DEFAULT 0,
    alone INTEGER NOT NULL DEFAULT 0,
    asks_match INTEGER NOT NULL DEFAULT 0,
    asked INTEGER NOT NULL DEFAULT 0,   -- attempts that asked the destination
    PRIMARY KEY (route, position, redrive)
) WITHOUT ROWID;
CREATE INDEX deliveries_due ON deliveries (route, at) WHERE in_flight = 0;

CREATE TABLE attempts (
    position INTEGER NOT NULL,
    route TEXT NOT NULL,
    redrive INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    took INTEGER NOT NULL,          -- nanoseconds
    outcome TEXT NOT NULL,
    status INTEGER,
    detail TEXT,
    PRIMARY KEY (position, route, redrive, attempt)
) WITHOUT ROWID;

CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    route TEXT NOT NULL,
    position INTEGER NOT NULL,
    redrive INTEGER NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT,
    attempts INTEGER NOT NULL,
    at INTEGER NOT NULL
);
CREATE INDEX dead_letters_by_position ON dead_letters (position);

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

/// What a file of format 3 has more.
const SINCE_3: &str = "
CREATE INDEX IF NOT EXISTS attempts_by_end ON attempts (started_at + took);

-- Refused webhooks: nothing in them is proven. The sum of `bytes` is in `meta`.
CREATE TABLE IF NOT EXISTS refused (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE,
    body BLOB NOT NULL,
    headers TEXT NOT NULL,          -- JSON: a list of names and values, these in base64
    bytes INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    account TEXT NOT NULL
);
";

/// All that a file of this format has.
pub(crate) const ALL: [&str; 5] = [TABLES, counters::ROUTES, SINCE_3, counters::COUNTERS, counters::GAPS];

/// Brings a file of an older format up to this one.
pub(crate) fn upgrade(sql: &Connection) -> rusqlite::Result<()> {
    if !sql.table_exists(None, "refs")? {
        refs::make(sql)?;
    }
    refs::make_room_for_fluent_ids(sql)?;
    if !sql.column_exists(None, "deliveries", "asks_match")? {
        sql.execute_batch("ALTER TABLE deliveries ADD COLUMN asks_match INTEGER NOT NULL DEFAULT 0")?;
    }
    if !sql.column_exists(None, "deliveries", "asked")? {
        sql.execute_batch("ALTER TABLE deliveries ADD COLUMN asked INTEGER NOT NULL DEFAULT 0")?;
    }
    sql.execute_batch(SINCE_3)?;
    if !sql.table_exists(None, "dead_counts")? {
        counters::make(sql)?;
    }
    counters::make_gaps(sql)
}

/// What a file holds.
pub(crate) struct Kind {
    pub(crate) tables: &'static [&'static str],
    /// What it is called, and a table by which the other kind is known.
    pub(crate) name: &'static str,
    pub(crate) not: &'static str,
    pub(crate) format: i64,
    /// Makes the newest format of the one before it.
    pub(crate) upgrade: fn(&Connection) -> rusqlite::Result<()>,
    /// Begins a new file where one was set aside, at a time.
    pub(crate) follow: fn(&Connection, i64) -> rusqlite::Result<()>,
    /// Reads what must be readable.
    pub(crate) check: fn(&Connection) -> rusqlite::Result<()>,
    /// What to do with one that was set aside.
    pub(crate) advice: &'static str,
}

/// SQLite would make a file that everybody can read.
pub(crate) fn make_private(path: &Path) -> rusqlite::Result<()> {
    let cannot = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
    private_files::prepare(path)
        .map_err(|error| rusqlite::Error::SqliteFailure(cannot, Some(error.to_string())))
}

/// Opens the file with what every connection needs.
pub(crate) fn connect(path: &Path, create: bool) -> rusqlite::Result<Connection> {
    if create {
        make_private(path)?;
    }
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, create);
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    // Every commit is on the disk before anybody hears of it.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A root that can't be written to has no room for temporary files.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // The writer checkpoints by itself: an automatic one hides its errors.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // What a long reader made of the log does not stay.
    connection.pragma_update(None, "journal_size_limit", signed(CHECKPOINT_BYTES))?;
    // Nor does closing write: after a failed fsync nothing may be tried again.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_prepared_statement_cache_capacity(48);
    Ok(connection)
}

/// A connection that can't write.
pub(crate) fn connect_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path, false)?;
    connection.pragma_update(None, "query_only", true)?;
    small_cache(&connection)?;
    Ok(connection)
}

/// How long one read may take: while it does, the log can't begin anew.
pub(crate) const READ_WITHIN: Duration = Duration::from_secs(30);

/// Has SQLite answer nothing more after this time, until this is said again.
pub(crate) fn end_after(connection: &mut Connection, time: Duration) -> rusqlite::Result<()> {
    /// Steps of SQLite's machine between two looks at the time: some tenths of a millisecond.
    const LOOK_EVERY: i32 = 10_000;
    let until = Instant::now() + time;
    connection.progress_handler(LOOK_EVERY, Some(move || Instant::now() >= until))
}

/// For connections that read what is new, or little.
pub(crate) fn small_cache(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", READ_CACHE_KIB)
}

/// Makes the tables where there are none, brings older ones up to date, and says
/// which format is there. `follows` is when, if a new file would follow one that was set aside.
pub(crate) fn prepare(
    connection: &mut Connection,
    kind: &Kind,
    follows: Option<i64>,
) -> rusqlite::Result<i64> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    debug_assert_eq!(mode, "wal");
    let is_there = connection.table_exists(None, "meta")?;
    let found = if is_there { meta(connection, "format")?.unwrap_or_default() } else { kind.format };
    if is_there && found >= kind.format {
        return Ok(found);
    }
    let transaction = connection.transaction()?;
    if is_there {
        (kind.upgrade)(&transaction)?;
    } else {
        kind.tables.iter().try_for_each(|tables| transaction.execute_batch(tables))?;
        set_meta(&transaction, "epoch", format!("{:016x}", fastrand::u64(1..)))?;
        follows.map_or(Ok(()), |now| (kind.follow)(&transaction, now))?;
    }
    set_meta(&transaction, "format", kind.format)?;
    transaction.commit()?;
    Ok(kind.format)
}

/// Why a person holds a route's deliveries back; nothing where nobody does, or did so up to
/// a time that has passed.
pub(crate) fn pause_of(connection: &Connection, route: &str, now: i64) -> rusqlite::Result<Option<Pause>> {
    let found: Option<Value> = meta(connection, &format!("paused: {route}"))?;
    let pause = found.map(|value| match value {
        Value::Text(text) => serde_json::from_str(&text).unwrap_or_default(),
        // As an earlier version writes it.
        _ => Pause::default(),
    });
    Ok(pause.filter(|pause| paused_until(pause) > now))
}

/// When a pause ends, in Unix nanoseconds; the end of time where somebody has to end it.
pub(crate) fn paused_until(pause: &Pause) -> i64 {
    pause.until.map_or(i64::MAX, nanos)
}

/// When somebody last wanted a route's destination to be asked at once.
pub(crate) fn asked_again(connection: &Connection, route: &str) -> rusqlite::Result<i64> {
    Ok(meta(connection, &format!("ask again: {route}"))?.unwrap_or_default())
}

/// A value of the table `meta`.
pub(crate) fn meta<T: rusqlite::types::FromSql>(
    connection: &Connection,
    key: &str,
) -> rusqlite::Result<Option<T>> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

/// Sets a value of the table `meta`.
pub(crate) fn set_meta(
    connection: &Connection,
    key: &str,
    value: impl rusqlite::ToSql,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute(rusqlite::params![key, value])
        .map(drop)
}

/// The newest position ever given out, also when its event is gone.
pub(crate) fn last_position(connection: &Connection) -> rusqlite::Result<u64> {
    let newest: Option<i64> =
        connection.prepare_cached("SELECT max(position) FROM events")?.query_row([], |row| row.get(0))?;
    let removed: Option<i64> = meta(connection, "removed_up_to")?;
    let cursor: Option<i64> =
        connection.prepare_cached("SELECT max(cursor) FROM routes")?.query_row([], |row| row.get(0))?;
    let known = [newest, removed, cursor].into_iter().flatten().max();
    Ok(unsigned(known.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing else shows it where no power fails.
    #[test]
    fn every_connection_waits_for_the_disk_and_moves_no_log_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        for connection in [connect(&path, true).unwrap(), connect_to_read(&path).unwrap()] {
            let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            // FULL; in a log of this kind it is one fsync for each commit.
            assert_eq!(number("synchronous"), Ok(2));
            assert_eq!(number("wal_autocheckpoint"), Ok(0));
            assert_eq!(connection.db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE), Ok(true));
        }
    }
}
