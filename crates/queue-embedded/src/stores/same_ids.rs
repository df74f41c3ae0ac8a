//! Facts that say which of several events of one key a route delivers. There may be as many as
//! events, so they have a table of their own, ordered by the time of setting; the oldest are
//! removed first. Their times are the queue's own, which nobody can set.

use std::time::Duration;

use event_model::Bytes;
use queue::Fact;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use sqlite_file::rows::{from_nanos, signed, unsigned};
use sqlite_file::{meta, set_meta};

use crate::options::Options;
use crate::stores::connections::{contains_table, nanoseconds};

const TABLE: &str = "
CREATE TABLE IF NOT EXISTS same_ids (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    value BLOB NOT NULL,
    at INTEGER NOT NULL
);
";

/// Approximate bytes that one fact takes in the file; its name is in an index, too.
const COST: &str = "(2 * length(name) + length(value) + 64)";

/// The key of `meta` with the sum of these costs.
const BYTES: &str = "same_ids_bytes";

/// The key of `meta` with the time of the newest fact that had to make room within the dedup
/// window.
const MADE_ROOM: &str = "same_ids_made_room";

/// Largest number of bytes of these facts, and the part of the file that they may take.
const MOST: u64 = 512 << 20;
const SHARE: u64 = 20;

/// Facts forgotten in one pass, for which a publish waits a few milliseconds.
const CHUNK: usize = 256;

pub(crate) fn get(sql: &Connection, name: &str) -> rusqlite::Result<Option<Bytes>> {
    if !contains_table(sql, "same_ids")? {
        return Ok(None);
    }
    let mut statement = sql.prepare_cached("SELECT value FROM same_ids WHERE name = ?1")?;
    let found = statement
        .query_row([name], |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    Ok(found.map(Into::into))
}

/// Sets a fact, and moves it to the end of the order.
pub(crate) fn set(sql: &Connection, name: &str, value: &[u8], now: i64) -> rusqlite::Result<()> {
    sql.execute_batch(TABLE)?;
    let before: Option<i64> = sql
        .prepare_cached(&format!(
            "DELETE FROM same_ids WHERE name = ?1 RETURNING {COST}"
        ))?
        .query_map([name], |row| row.get(0))?
        .next()
        .transpose()?;
    let cost: i64 = sql
        .prepare_cached(&format!(
            "INSERT INTO same_ids (name, value, at) VALUES (?1, ?2, ?3) RETURNING {COST}"
        ))?
        .query_row(params![name, value, now], |row| row.get(0))?;
    set_meta(sql, BYTES, bytes(sql)? + cost - before.unwrap_or(0))
}

/// Approximate bytes that all these facts take.
pub(crate) fn bytes(sql: &Connection) -> rusqlite::Result<i64> {
    Ok(meta(sql, BYTES)?.unwrap_or(0))
}

/// Forgets some of the oldest facts, of before the dedup window or beyond the limit on bytes;
/// `true` if there may be more.
pub(crate) fn forget(sql: &mut Connection, options: &Options, now: i64) -> rusqlite::Result<bool> {
    let most = signed(MOST.min(options.retention.bytes / SHARE));
    let too_old = now.saturating_sub(nanoseconds(options.dedup_window));
    if !contains_table(sql, "same_ids")? {
        return Ok(false);
    }
    let transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut left = bytes(&transaction)?;
    let mut up_to = None;
    let mut made_room = None;
    let mut count = 0;
    {
        let mut oldest = transaction.prepare_cached(&format!(
            "SELECT version, at, {COST} FROM same_ids ORDER BY version LIMIT {CHUNK}"
        ))?;
        let mut rows = oldest.query([])?;
        while let Some(row) = rows.next()? {
            let at = row.get::<_, i64>(1)?;
            if left <= most && at >= too_old {
                break;
            }
            if at >= too_old {
                made_room = made_room.max(Some(at));
            }
            (left, up_to, count) = (
                left - row.get::<_, i64>(2)?,
                Some(row.get::<_, i64>(0)?),
                count + 1,
            );
        }
    }
    if let Some(up_to) = up_to {
        transaction
            .prepare_cached("DELETE FROM same_ids WHERE version <= ?1")?
            .execute([up_to])?;
        set_meta(&transaction, BYTES, left)?;
    }
    if let Some(at) = made_room.max(meta(&transaction, MADE_ROOM)?) {
        set_meta(&transaction, MADE_ROOM, at)?;
    }
    transaction.commit()?;
    Ok(count == CHUNK)
}

/// For how long these facts are known at `now`, if younger ones than the dedup window had to make
/// room. Once that is a window ago, the answer is longer than the window.
pub(crate) fn known_for(sql: &Connection, now: i64) -> rusqlite::Result<Option<Duration>> {
    let newest: Option<i64> = meta(sql, MADE_ROOM)?;
    Ok(newest.map(|at| Duration::from_nanos(unsigned(now.saturating_sub(at)))))
}

pub(crate) fn entries(sql: &Connection) -> rusqlite::Result<Vec<Fact>> {
    if !contains_table(sql, "same_ids")? {
        return Ok(Vec::new());
    }
    sql.prepare_cached("SELECT name, value, at FROM same_ids ORDER BY name")?
        .query_map([], |row| {
            let value: Vec<u8> = row.get(1)?;
            let set_at = from_nanos(row.get(2)?).unwrap_or_default();
            Ok(Fact {
                name: row.get(0)?,
                value: value.into(),
                set_at,
            })
        })?
        .collect()
}

#[cfg(test)]
mod tests {
    use queue::conformance::event;

    use super::*;
    use crate::options::Retention;

    const HOUR: Duration = Duration::from_hours(1);

    fn names(sql: &Connection) -> Vec<String> {
        entries(sql)
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .collect()
    }

    fn open() -> Connection {
        let sql = Connection::open_in_memory().unwrap();
        sql.execute_batch("CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID")
            .unwrap();
        sql
    }

    #[test]
    fn they_go_in_the_order_in_which_they_were_set_and_when_ids_do() {
        let mut sql = open();
        let hour = nanoseconds(HOUR);
        for number in 0..10 {
            set(&sql, &format!("same-id.r.{number}"), b"1", number * hour).unwrap();
        }
        set(&sql, "same-id.r.0", b"2", 10 * hour).unwrap();
        let options = Options {
            dedup_window: HOUR * 7,
            ..Options::new("x")
        };
        assert!(!forget(&mut sql, &options, 10 * hour).unwrap());
        assert_eq!(known_for(&sql, 10 * hour).unwrap(), None, "none had to go");
        assert_eq!(
            names(&sql)[..2],
            ["same-id.r.0", "same-id.r.3"],
            "the window of the settings"
        );
        let few = signed(bytes(&sql).unwrap().cast_unsigned() * SHARE / 2).cast_unsigned();
        let options = Options {
            retention: Retention {
                age: HOUR,
                bytes: few,
            },
            ..options
        };
        assert!(!forget(&mut sql, &options, 10 * hour).unwrap());
        assert_eq!(
            names(&sql),
            ["same-id.r.0", "same-id.r.7", "same-id.r.8", "same-id.r.9"],
            "half of them"
        );
        let known = |now| known_for(&sql, now).unwrap();
        assert_eq!(
            known(10 * hour),
            Some(HOUR * 4),
            "the sixth was the last to go"
        );
        assert_eq!(known(17 * hour), Some(HOUR * 11), "longer than the window");
        assert_eq!(known(5 * hour), Some(Duration::ZERO), "a clock set back");
    }

    #[test]
    fn one_that_is_set_over_and_over_takes_the_room_of_one() {
        let mut sql = open();
        let key = event("E", "o").fluent_key();
        let name = queue::same_id::name(key, "r");
        for at in 0..1000 {
            set(&sql, &name, b"x", at).unwrap();
        }
        let one = bytes(&sql).unwrap();
        assert!((1..400).contains(&one), "{one}");
        let options = Options {
            dedup_window: HOUR,
            ..Options::new("x")
        };
        forget(&mut sql, &options, nanoseconds(HOUR * 2)).unwrap();
        assert_eq!((bytes(&sql).unwrap(), names(&sql).len()), (0, 0));
    }
}
