//! Which of the events of one id a route delivers: marks, but as many as events, so in a table
//! of their own, in the order in which they were set, from whose beginning they go.

use event_model::Bytes;
use queue::MarkEntry;
use queue::same_id::{SAME_ID, SAME_ID_FOR, SAME_IDS_KEPT};
use rusqlite::{Connection, OptionalExtension, params};

use crate::beside::connections::{is_there, nanoseconds};
use sqlite_file::rows::{from_nanos, signed};

const TABLE: &str = "
CREATE TABLE IF NOT EXISTS same_ids (
    version INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    value BLOB NOT NULL,
    at INTEGER NOT NULL
);
";

/// Old ones that go when one is set: more than come.
const GO_TOGETHER: i64 = 4;

pub(crate) fn is_one(name: &str) -> bool {
    name.strip_prefix(SAME_ID).is_some_and(|rest| rest.starts_with('.'))
}

/// Its place is its version: it is set at the end, each time.
pub(crate) fn get_versioned(sql: &Connection, name: &str) -> rusqlite::Result<Option<(Bytes, u64)>> {
    if !is_there(sql, "same_ids")? {
        return Ok(None);
    }
    let mut statement = sql.prepare_cached("SELECT value, version FROM same_ids WHERE name = ?1")?;
    let found = statement.query_row([name], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?)));
    Ok(found.optional()?.map(|(value, version)| (value.into(), version.cast_unsigned())))
}

pub(crate) fn get(sql: &Connection, name: &str) -> rusqlite::Result<Option<Bytes>> {
    Ok(get_versioned(sql, name)?.map(|(value, _)| value))
}

pub(crate) fn set(sql: &Connection, name: &str, value: &[u8], now: i64) -> rusqlite::Result<()> {
    sql.execute_batch(TABLE)?;
    sql.prepare_cached("INSERT OR REPLACE INTO same_ids (name, value, at) VALUES (?1, ?2, ?3)")?
        .execute(params![name, value, now])?;
    let beyond = sql.last_insert_rowid() - signed(SAME_IDS_KEPT);
    forget(sql, now.saturating_sub(nanoseconds(SAME_ID_FOR)), beyond)
}

/// Forgets some of those that were set before a time, or are not among the newest.
fn forget(sql: &Connection, too_old: i64, beyond: i64) -> rusqlite::Result<()> {
    sql.prepare_cached(
        "DELETE FROM same_ids WHERE (at < ?1 OR version <= ?2)
         AND version IN (SELECT version FROM same_ids ORDER BY version LIMIT ?3)",
    )?
    .execute(params![too_old, beyond, GO_TOGETHER])
    .map(drop)
}

pub(crate) fn unset(sql: &Connection, name: &str) -> rusqlite::Result<()> {
    sql.execute_batch(TABLE)?;
    sql.execute("DELETE FROM same_ids WHERE name = ?1", [name]).map(drop)
}

pub(crate) fn entries(sql: &Connection) -> rusqlite::Result<Vec<MarkEntry>> {
    if !is_there(sql, "same_ids")? {
        return Ok(Vec::new());
    }
    sql.prepare_cached("SELECT name, value, at FROM same_ids ORDER BY name")?
        .query_map([], |row| {
            let value: Vec<u8> = row.get(1)?;
            let set_at = from_nanos(row.get(2)?).unwrap_or_default();
            Ok(MarkEntry { name: row.get(0)?, value: value.into(), set_at })
        })?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sql: &Connection) -> Vec<String> {
        entries(sql).unwrap().into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn they_go_in_the_order_in_which_they_were_set_and_at_their_time() {
        let sql = Connection::open_in_memory().unwrap();
        let hour = nanoseconds(std::time::Duration::from_hours(1));
        for number in 0..10 {
            set(&sql, &format!("same-id.r.{number}"), b"1", number * hour).unwrap();
        }
        set(&sql, "same-id.r.0", b"2", 10 * hour).unwrap();
        let (_, version) = get_versioned(&sql, "same-id.r.0").unwrap().unwrap();
        assert_eq!(version, 11, "it is the newest");
        set(&sql, "same-id.r.a", b"1", 75 * hour).unwrap();
        assert_eq!(names(&sql)[..3], ["same-id.r.0", "same-id.r.3", "same-id.r.4"], "older than 72 h");
        forget(&sql, 0, 6).unwrap();
        assert_eq!(names(&sql)[..3], ["same-id.r.0", "same-id.r.6", "same-id.r.7"], "beyond the newest");
    }

    #[test]
    fn no_other_mark_is_one() {
        assert!(is_one("same-id.r.k"));
        for name in ["same-ids.r", "same-id", "spool.a"] {
            assert!(!is_one(name), "{name}");
        }
    }
}
