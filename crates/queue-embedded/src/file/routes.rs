//! Settings of a route in its row: pause, filter, and requests to ask its destination.

use queue::Pause;
use rusqlite::{Connection, OptionalExtension, params};
use sqlite_file::rows::nanos;

/// The pause of a route; `None` if there is none, or its time has passed.
pub(crate) fn pause_of(sql: &Connection, route: &str, now: i64) -> rusqlite::Result<Option<Pause>> {
    let text: Option<String> =
        value(sql, "SELECT pause FROM routes WHERE name = ?1", route)?.flatten();
    pause(text.as_deref(), now)
}

/// Reads a pause from its column; `None` if there is none, or its time has passed.
pub(crate) fn pause(text: Option<&str>, now: i64) -> rusqlite::Result<Option<Pause>> {
    let Some(text) = text else { return Ok(None) };
    // A text that can't be read still says that somebody paused the route: only this route is
    // affected.
    let pause: Pause = serde_json::from_str(text).unwrap_or_default();
    Ok(Some(pause).filter(|pause| paused_until(pause) > now))
}

/// The end of a pause, in Unix nanoseconds; the largest number if a person has to end it.
pub(crate) fn paused_until(pause: &Pause) -> i64 {
    pause.until.map_or(i64::MAX, nanos)
}

/// Pauses a route, or resumes it with `None`. Returns whether the route exists.
pub(crate) fn set_pause(
    sql: &Connection,
    route: &str,
    pause: Option<&Pause>,
) -> rusqlite::Result<bool> {
    let text = pause.map(|pause| serde_json::to_string(pause).unwrap_or_default());
    sql.execute(
        "UPDATE routes SET pause = ?2 WHERE name = ?1",
        params![route, text],
    )
    .map(|rows| rows == 1)
}

/// The time at which somebody last asked for the destination to be tried at once.
pub(crate) fn asked_again(sql: &Connection, route: &str) -> rusqlite::Result<i64> {
    Ok(value(sql, "SELECT asked_again FROM routes WHERE name = ?1", route)?.unwrap_or_default())
}

/// Records that somebody asks for the destination to be tried at once. Returns whether the route
/// exists.
pub(crate) fn ask_again(sql: &Connection, route: &str, now: i64) -> rusqlite::Result<bool> {
    sql.execute(
        "UPDATE routes SET asked_again = ?2 WHERE name = ?1",
        params![route, now],
    )
    .map(|rows| rows == 1)
}

/// Records the digest of a route's filter.
pub(crate) fn set_filter(sql: &Connection, id: i64, digest: &str) -> rusqlite::Result<()> {
    sql.prepare_cached("UPDATE routes SET filter = ?2 WHERE id = ?1")?
        .execute(params![id, digest])
        .map(drop)
}

fn value<T: rusqlite::types::FromSql>(
    sql: &Connection,
    text: &str,
    route: &str,
) -> rusqlite::Result<Option<T>> {
    sql.prepare_cached(text)?
        .query_row([route], |row| row.get(0))
        .optional()
}
