//! The tables of a queue's file, and their format.

use rusqlite::Connection;
use sqlite_file::rows::unsigned;
use sqlite_file::{FileKind, meta, quarantine};

use crate::file::{counters, refs, succession};

/// The format of a queue's file. Another format is refused, never guessed at.
pub(crate) const FORMAT: i64 = 12;

/// The key of `meta` with the serving process's report on its routes.
pub(crate) const WORKING: &str = "working";

/// The key of `meta` with the time since which every event that came is still stored.
pub(crate) const COMPLETE_SINCE: &str = "complete_since";

/// The key of `meta` with the time of the last write, within a second.
pub(crate) const CLOCK: &str = "clock";

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
    clock_set INTEGER NOT NULL DEFAULT 0,   -- the last row of clock_sets that its times follow
    PRIMARY KEY (route, position, redrive)
) WITHOUT ROWID;
CREATE INDEX deliveries_due ON deliveries (route, at) WHERE in_flight = 0;
-- As short as there are attempts at a time, beside a million that may wait.
CREATE INDEX deliveries_in_flight ON deliveries (route) WHERE in_flight = 1;
-- By which retention passes over single events, and a damaged one goes.
CREATE INDEX deliveries_by_position ON deliveries (position);

-- How the machine's clock was set, in nanoseconds, as far as deliveries still have to follow; the
-- newest row stays. Those in flight follow at once, those that wait a few at a time.
CREATE TABLE clock_sets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    due INTEGER NOT NULL,           -- what is to be added to the time before which they wait
    tried INTEGER NOT NULL          -- and to that of their first attempt
);
INSERT INTO clock_sets VALUES (0, 0, 0);

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
";

/// The table of rejected webhooks, and the index by which ended attempts are found.
const REFUSED: &str = "
CREATE INDEX attempts_by_end ON attempts (started_at + took);

-- Refused webhooks: nothing in them is proven. The sum of `bytes` is in `meta`.
CREATE TABLE refused (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest BLOB NOT NULL UNIQUE,
    body BLOB NOT NULL,
    headers TEXT NOT NULL,          -- JSON: a list of names and values, these in base64
    bytes INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    account TEXT NOT NULL,
    age INTEGER NOT NULL            -- when it was captured, in the queue's own time
);
";

/// Every table of this format.
pub(crate) const ALL: [&str; 7] = [
    TABLES,
    refs::TABLE,
    quarantine::TABLE,
    counters::ROUTES,
    REFUSED,
    counters::COUNTERS,
    counters::GAPS,
];

/// The kind of a queue's file.
pub(crate) const QUEUE: FileKind = FileKind {
    tables: &ALL,
    name: "queue",
    not: "spooled",
    format: FORMAT,
    follow: succession::follow,
    check: |sql| last_position(sql).map(drop),
    advice: "run `fluent-webhooks salvage` on it",
};

/// The newest position ever assigned, even if its event was removed.
pub(crate) fn last_position(connection: &Connection) -> rusqlite::Result<u64> {
    let newest: Option<i64> = connection
        .prepare_cached("SELECT max(position) FROM events")?
        .query_row([], |row| row.get(0))?;
    let removed: Option<i64> = meta(connection, "removed_up_to")?;
    let cursor: Option<i64> = connection
        .prepare_cached("SELECT max(cursor) FROM routes")?
        .query_row([], |row| row.get(0))?;
    let known = [newest, removed, cursor].into_iter().flatten().max();
    Ok(unsigned(known.unwrap_or(0)))
}

/// The plan of a query in an empty file of this format: a line for each step.
#[cfg(test)]
pub(crate) fn plan(query: &str) -> Vec<String> {
    let sql = Connection::open_in_memory().unwrap();
    ALL.iter()
        .for_each(|tables| sql.execute_batch(tables).unwrap());
    let mut statement = sql.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
    let unbound = vec![rusqlite::types::Null; statement.parameter_count()];
    let steps = statement.query_map(rusqlite::params_from_iter(unbound), |row| row.get(3));
    steps.unwrap().collect::<rusqlite::Result<_>>().unwrap()
}
