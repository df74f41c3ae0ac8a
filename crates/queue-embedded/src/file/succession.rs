//! What a new file takes over from the one that it follows.

use std::path::Path;

use rusqlite::{Connection, params};
use sqlite_file::{connect_to_read, last_quarantined};

use crate::file::redrives;

/// Age, in milliseconds, up to which a quarantined file is the one that a new file follows: between
/// the two a process may have crashed, again and again.
const FOLLOWED_WITHIN: i64 = 24 * 3600 * 1000;

/// Prepares a new file that follows another one, at a time in Unix nanoseconds.
pub(crate) fn follow(sql: &Connection, now: i64) -> rusqlite::Result<()> {
    redrives::count_on(sql, now)?;
    let path = sql.path().map(Path::new);
    let Some((before, stamp)) = path.and_then(last_quarantined) else {
        return Ok(());
    };
    if now / 1_000_000 - stamp > FOLLOWED_WITHIN {
        return Ok(());
    }
    match pauses(&before) {
        Ok(pauses) => pauses.iter().try_for_each(|(route, pause)| {
            tracing::warn!(route, "the route stays paused in the new queue file");
            // Nothing has come yet, wherever a route is to start. A damaged file may name one twice.
            sql.execute(
                "INSERT OR IGNORE INTO routes (name, cursor, pause) VALUES (?1, 0, ?2)",
                params![route, pause],
            )
            .map(drop)
        }),
        Err(error) => {
            tracing::error!(%error, file = %before.display(), "which routes people had paused can't be read from the file that was set aside: all run now, and `routes pause` pauses them again");
            Ok(())
        }
    }
}

/// Routes that people had paused, as the file has it.
fn pauses(file: &Path) -> rusqlite::Result<Vec<(String, String)>> {
    let sql = connect_to_read(file)?;
    sql.prepare("SELECT name, pause FROM routes WHERE pause IS NOT NULL")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
