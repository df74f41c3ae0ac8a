//! The fact store in a queue file; its table is created when the first fact is set.

use event_model::{Bytes, Timestamp};
use futures::future::BoxFuture;
use queue::same_id::SAME_ID;
use queue::{Fact, FactStore, MARKED_FOR, QueueError};
use rusqlite::{Connection, OptionalExtension, params};
use sqlite_file::reading;
use sqlite_file::rows::from_nanos;

use crate::stores::connections::{SqliteStores, Stamp, contains_table, nanoseconds, writing};
use crate::stores::same_ids;

const TABLE: &str = "
CREATE TABLE IF NOT EXISTS marks (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    at INTEGER NOT NULL,
    age INTEGER NOT NULL            -- when it was set, in the queue's own time
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS marks_by_age ON marks (age);
";

impl FactStore for SqliteStores {
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, QueueError>> {
        let name = name.to_owned();
        self.read(move |sql| get(sql, &name).map_err(reading))
    }

    fn set<'a>(&'a self, name: &'a str, value: Bytes) -> BoxFuture<'a, Result<(), QueueError>> {
        let name = name.to_owned();
        self.write(move |sql, stamp| set(sql, &name, &value, stamp).map_err(writing))
    }

    fn get_versioned<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<(Bytes, u64)>, QueueError>> {
        let name = name.to_owned();
        self.read(move |sql| get_versioned(sql, &name).map_err(reading))
    }

    fn compare_and_set<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
        version: u64,
    ) -> BoxFuture<'a, Result<bool, QueueError>> {
        let name = name.to_owned();
        self.write(move |sql, stamp| {
            let current = get_versioned(sql, &name)
                .map_err(writing)?
                .map_or(0, |(_, version)| version);
            if current != version {
                return Ok(false);
            }
            set(sql, &name, &value, stamp).map_err(writing)?;
            Ok(true)
        })
    }

    fn entries<'a>(&'a self, word: &'a str) -> BoxFuture<'a, Result<Vec<Fact>, QueueError>> {
        let word = word.to_owned();
        self.read(move |sql| entries(sql, &word).map_err(reading))
    }

    fn now(&self) -> BoxFuture<'_, Result<Timestamp, QueueError>> {
        let stamps = self.stamps();
        self.read(move |sql| {
            let stamp = stamps(sql).map_err(reading)?;
            Ok(from_nanos(stamp.now).unwrap_or_default())
        })
    }

    fn unset<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        let name = name.to_owned();
        self.write(move |sql, _| {
            let made = sql
                .execute_batch(TABLE)
                .and_then(|()| sql.execute("DELETE FROM marks WHERE name = ?1", [&name]));
            made.map_err(writing).map(drop)
        })
    }
}

fn get(sql: &Connection, name: &str) -> rusqlite::Result<Option<Bytes>> {
    Ok(get_versioned(sql, name)?.map(|(value, _)| value))
}

/// The value of a fact, and its version: the time at which it was set, which rises with every
/// change.
fn get_versioned(sql: &Connection, name: &str) -> rusqlite::Result<Option<(Bytes, u64)>> {
    if !contains_table(sql, "marks")? {
        return Ok(None);
    }
    let mut statement = sql.prepare_cached("SELECT value, at FROM marks WHERE name = ?1")?;
    let found = statement.query_row([name], |row| {
        Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?))
    });
    Ok(found
        .optional()?
        .map(|(value, at)| (value.into(), at.cast_unsigned())))
}

fn set(sql: &Connection, name: &str, value: &[u8], stamp: Stamp) -> rusqlite::Result<()> {
    sql.execute_batch(TABLE)?;
    let too_old = stamp.age.saturating_sub(nanoseconds(MARKED_FOR));
    sql.prepare_cached("DELETE FROM marks WHERE age < ?1")?
        .execute([too_old])?;
    sql.prepare_cached(
        "INSERT INTO marks (name, value, at, age) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (name) DO UPDATE
         SET value = excluded.value, at = max(excluded.at, at + 1), age = excluded.age",
    )?
    .execute(params![name, value, stamp.now, stamp.age])
    .map(drop)
}

fn entries(sql: &Connection, word: &str) -> rusqlite::Result<Vec<Fact>> {
    if word == SAME_ID {
        return same_ids::entries(sql);
    }
    if !contains_table(sql, "marks")? {
        return Ok(Vec::new());
    }
    // Names that begin with `<word>.` sort before `<word>/`.
    sql.prepare_cached(
        "SELECT name, value, at FROM marks WHERE name > ?1 || '.' AND name < ?1 || '/' ORDER BY name",
    )?
    .query_map([word], |row| {
        let value: Vec<u8> = row.get(1)?;
        let set_at = from_nanos(row.get(2)?).unwrap_or_default();
        Ok(Fact { name: row.get(0)?, value: value.into(), set_at })
    })?
    .collect()
}
