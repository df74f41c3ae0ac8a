//! What is set of a route, in its row.

use queue::Pause;
use rusqlite::{Connection, OptionalExtension, params};
use sqlite_file::rows::nanos;

/// Why a person holds a route's deliveries back; nothing where nobody does, or did so up to
/// a time that has passed.
pub(crate) fn pause_of(sql: &Connection, route: &str, now: i64) -> rusqlite::Result<Option<Pause>> {
    let text: Option<String> = value(sql, "SELECT pause FROM routes WHERE name = ?1", route)?.flatten();
    pause(text.as_deref(), now)
}

/// The same from what its row has.
pub(crate) fn pause(text: Option<&str>, now: i64) -> rusqlite::Result<Option<Pause>> {
    let Some(text) = text else { return Ok(None) };
    // What can't be read still says that somebody wanted it: it costs this route, and no other.
    let pause: Pause = serde_json::from_str(text).unwrap_or_default();
    Ok(Some(pause).filter(|pause| paused_until(pause) > now))
}

/// When a pause ends, in Unix nanoseconds; the end of time where somebody has to end it.
pub(crate) fn paused_until(pause: &Pause) -> i64 {
    pause.until.map_or(i64::MAX, nanos)
}

/// Holds a route's deliveries back, or no longer. Whether there is such a route.
pub(crate) fn set_pause(sql: &Connection, route: &str, pause: Option<&Pause>) -> rusqlite::Result<bool> {
    let text = pause.map(|pause| serde_json::to_string(pause).unwrap_or_default());
    sql.execute("UPDATE routes SET pause = ?2 WHERE name = ?1", params![route, text]).map(|rows| rows == 1)
}

/// When somebody last wanted a route's destination to be asked at once.
pub(crate) fn asked_again(sql: &Connection, route: &str) -> rusqlite::Result<i64> {
    Ok(value(sql, "SELECT asked_again FROM routes WHERE name = ?1", route)?.unwrap_or_default())
}

/// Notes that somebody wants that. Whether there is such a route.
pub(crate) fn ask_again(sql: &Connection, route: &str, now: i64) -> rusqlite::Result<bool> {
    sql.execute("UPDATE routes SET asked_again = ?2 WHERE name = ?1", params![route, now])
        .map(|rows| rows == 1)
}

/// Notes what a route matches.
pub(crate) fn set_filter(sql: &Connection, id: i64, digest: &str) -> rusqlite::Result<()> {
    sql.prepare_cached("UPDATE routes SET filter = ?2 WHERE id = ?1")?.execute(params![id, digest]).map(drop)
}

fn value<T: rusqlite::types::FromSql>(
    sql: &Connection,
    text: &str,
    route: &str,
) -> rusqlite::Result<Option<T>> {
    sql.prepare_cached(text)?.query_row([route], |row| row.get(0)).optional()
}
