//! Attempts that wait for their turn to run exclusively, and have not begun. They are entries of
//! `meta`, since only suspects wait.

use rusqlite::{Connection, params};
use sqlite_file::meta;

use crate::shared::LeaseKey;
use crate::writing::job::Store;

fn entry(key: LeaseKey) -> String {
    let LeaseKey {
        route,
        position,
        redrive,
    } = key;
    format!("turn.{route}.{position}.{redrive}")
}

/// Records that an attempt waits.
pub(crate) fn wait(store: &Store<'_>, key: LeaseKey, attempt: u32) -> rusqlite::Result<()> {
    store
        .sql
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute(params![entry(key), attempt])
        .map(drop)
}

/// Records that it waits no longer.
pub(crate) fn begin(store: &Store<'_>, key: LeaseKey) -> rusqlite::Result<()> {
    store
        .sql
        .prepare_cached("DELETE FROM meta WHERE key = ?1")?
        .execute([entry(key)])
        .map(drop)
}

/// Whether this attempt waited when the process ended.
pub(crate) fn is_waiting(sql: &Connection, key: LeaseKey, attempt: u32) -> rusqlite::Result<bool> {
    let waiting: Option<u32> = meta(sql, &entry(key))?;
    Ok(waiting == Some(attempt))
}

/// Removes all of them: nobody waits in a process that begins.
pub(crate) fn clear(sql: &Connection) -> rusqlite::Result<()> {
    sql.execute("DELETE FROM meta WHERE key GLOB 'turn.*'", [])
        .map(drop)
}
