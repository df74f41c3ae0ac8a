//! Delivering an event to a route once more, under a number that it never had.

use queue::redrive_number;
use rusqlite::{Connection, OptionalExtension, params};
use sqlite_file::rows::unsigned;

/// The id of a route that has a position here.
pub(crate) fn known_route(sql: &Connection, route: &str) -> rusqlite::Result<Option<i64>> {
    sql.prepare_cached("SELECT id FROM routes WHERE name = ?1")?
        .query_row([route], |row| row.get(0))
        .optional()
}

/// Delivers an event to a route once more, under a number that the two never had.
pub(crate) fn hand_over(
    sql: &Connection,
    id: i64,
    route: &str,
    position: i64,
    asks_match: bool,
    now: i64,
) -> rusqlite::Result<()> {
    let place = take_place(sql, after_known(sql, id, route, position)?)?;
    insert(sql, id, position, redrive_number(place), asks_match, now)
}

/// Delivers an event to a route once more, under a number that was taken for many events. Earlier
/// versions counted otherwise: an event that has come further gets a number above that.
pub(crate) fn hand_over_as(
    sql: &Connection,
    id: i64,
    route: &str,
    position: i64,
    number: u32,
    now: i64,
) -> rusqlite::Result<()> {
    let least = redrive_number(unsigned(after_known(sql, id, route, position)?));
    insert(sql, id, position, number.max(least), false, now)
}

/// Takes a number for a replay that no other gets.
pub(crate) fn take_number(sql: &Connection) -> rusqlite::Result<u32> {
    take_place(sql, 1).map(redrive_number)
}

fn insert(
    sql: &Connection,
    id: i64,
    position: i64,
    number: u32,
    asks_match: bool,
    now: i64,
) -> rusqlite::Result<()> {
    sql.prepare_cached(
        "INSERT INTO deliveries (route, position, redrive, in_flight, attempt, first_at, at, asks_match, clock_set)
         VALUES (?1, ?2, ?3, 0, 0, ?4, ?4, ?5, (SELECT max(id) FROM clock_sets))",
    )?
    .execute(params![id, position, number, now, asks_match])
    .map(drop)
}

/// Reserves an id among the dead letters, from `least` on, that no letter gets. The file itself
/// counts these ids, so that they are not forgotten with the history.
fn take_place(sql: &Connection, least: i64) -> rusqlite::Result<u64> {
    let taken = sql
        .prepare_cached(
            "UPDATE sqlite_sequence SET seq = max(seq + 1, ?1) WHERE name = 'dead_letters' RETURNING seq",
        )?
        .query_row([least], |row| row.get(0))
        .optional()?;
    let place = match taken {
        Some(place) => place,
        None => {
            // The first id: there has been no letter yet.
            sql.execute(
                "INSERT INTO sqlite_sequence (name, seq) VALUES ('dead_letters', ?1)",
                [least],
            )?;
            least
        }
    };
    Ok(unsigned(place))
}

/// Makes a file that follows another one, set aside or taken away, count on from the time, in seconds, since events
/// that are sent again may have had a number there. The earlier file counted from 1, or from the
/// time of its own creation, and has not come so far unless it had more than one letter or
/// redrive a second for its whole life.
pub(crate) fn count_on(sql: &Connection, now: i64) -> rusqlite::Result<()> {
    take_place(sql, now / 1_000_000_000).map(drop)
}

/// The number above all known ones of this event on this route: earlier versions counted
/// otherwise, and may have come further than there were letters.
fn after_known(sql: &Connection, id: i64, route: &str, position: i64) -> rusqlite::Result<i64> {
    sql.prepare_cached(
        "SELECT 1 + max(
            coalesce((SELECT max(redrive) FROM attempts WHERE position = ?3 AND route = ?2), 0),
            coalesce((SELECT max(redrive) FROM deliveries WHERE position = ?3 AND route = ?1), 0),
            coalesce((SELECT max(redrive) FROM dead_letters WHERE position = ?3 AND route = ?2), 0))",
    )?
    .query_row(params![id, route, position], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use event_model::{Clock, SystemClock};

    use super::*;
    use crate::file::schema::QUEUE;

    /// The id that the next letter gets, in a file that nobody has written to yet.
    fn next_place(path: &Path) -> u64 {
        let sql = sqlite_file::open(path, &QUEUE, &SystemClock).unwrap().sql;
        take_place(&sql, 1).unwrap()
    }

    /// As a person does with a file of an earlier format.
    #[test]
    fn a_file_counts_on_from_one_that_was_moved_away() {
        let now = u64::try_from(SystemClock.now().as_second()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        assert_eq!(next_place(&path), 1, "the first one");
        fs::rename(&path, folder.path().join("queue.old")).unwrap();
        assert!(next_place(&path) >= now);
    }

    #[test]
    fn a_file_counts_on_from_one_that_was_set_aside_wherever_a_process_died() {
        let now = u64::try_from(SystemClock.now().as_second()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        assert_eq!(next_place(&path), 1, "the first one");
        // The process dies after the rename, before there is a new file.
        fs::rename(&path, folder.path().join("queue.db.damaged-1")).unwrap();
        let _ = fs::remove_file(path.with_extension("db-wal"));
        assert!(next_place(&path) >= now);
        // The process dies as soon as there is a new file.
        for _ in 0..2 {
            fs::write(path.with_extension("db.untrusted"), "as the test wants it").unwrap();
            drop(sqlite_file::open(&path, &QUEUE, &SystemClock).unwrap());
            assert!(next_place(&path) >= now);
        }
    }
}
