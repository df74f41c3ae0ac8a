//! Connections to a file, and the table `meta` of names and values that every file has.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::rows::signed;

/// Size of the writer's page cache, as SQLite's negative KiB: enough for the index pages that new
/// ids touch.
const CACHE_KIB: i64 = -4096;

/// Size of a reader's page cache. Readers read new rows once, so a larger cache gains nothing.
const READ_CACHE_KIB: i64 = -256;

/// Size of the log, in bytes, from which it is checkpointed.
pub(crate) const CHECKPOINT_BYTES: u64 = 16 << 20;

/// Longest wait for another process that is writing, such as a redrive.
pub const BUSY: Duration = Duration::from_secs(5);

/// Opens an existing file, with the settings that every connection needs.
///
/// # Errors
/// If SQLite reports an error.
pub fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // Creates no file: SQLite would create one that everybody can read.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    // Every commit is on the disk before any caller hears of it.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A root file system that is read-only has no room for temporary files.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // The writer checkpoints by itself, since an automatic checkpoint hides its errors.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // A log that grew because of a long reader is shortened again.
    connection.pragma_update(None, "journal_size_limit", signed(CHECKPOINT_BYTES))?;
    // Closing does not write either: after a failed fsync, no write may be tried again.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_prepared_statement_cache_capacity(48);
    Ok(connection)
}

/// Opens an existing file for reading only.
///
/// # Errors
/// If SQLite reports an error.
pub fn connect_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path)?;
    connection.pragma_update(None, "query_only", true)?;
    small_cache(&connection)?;
    Ok(connection)
}

/// Longest time of one read: until it ends, the log can't begin again.
pub const READ_WITHIN: Duration = Duration::from_secs(30);

/// Makes SQLite end every statement that runs past this time from now, until this is called
/// again.
///
/// # Errors
/// If SQLite reports an error.
pub fn end_after(connection: &mut Connection, time: Duration) -> rusqlite::Result<()> {
    /// Steps of SQLite's machine between two checks of the time: some tenths of a millisecond.
    const LOOK_EVERY: i32 = 10_000;
    let until = Instant::now() + time;
    connection.progress_handler(LOOK_EVERY, Some(move || Instant::now() >= until))
}

/// Reduces the page cache, for connections that read new rows, or few.
///
/// # Errors
/// If SQLite reports an error.
pub fn small_cache(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", READ_CACHE_KIB)
}

/// A value of the table `meta`.
///
/// # Errors
/// If SQLite reports an error.
pub fn meta<T: rusqlite::types::FromSql>(
    connection: &Connection,
    key: &str,
) -> rusqlite::Result<Option<T>> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

/// Sets a value of the table `meta`.
///
/// # Errors
/// If SQLite reports an error.
pub fn set_meta(
    connection: &Connection,
    key: &str,
    value: impl rusqlite::ToSql,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute(rusqlite::params![key, value])
        .map(drop)
}

/// Bytes of the file's pages that are in use.
///
/// # Errors
/// If SQLite reports an error.
pub fn used_bytes(sql: &Connection) -> rusqlite::Result<u64> {
    let number = |name: &str| sql.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = number("page_count")? - number("freelist_count")?;
    Ok(u64::try_from(pages * number("page_size")?).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the settings themselves: without a power failure, no other test shows them.
    #[test]
    fn every_connection_waits_for_the_disk_and_moves_no_log_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        std::fs::write(&path, "").unwrap();
        for connection in [connect(&path).unwrap(), connect_to_read(&path).unwrap()] {
            let number =
                |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            // FULL, which with this kind of log is one fsync for each commit.
            assert_eq!(number("synchronous"), Ok(2));
            assert_eq!(number("wal_autocheckpoint"), Ok(0));
            assert_eq!(
                connection.db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE),
                Ok(true)
            );
        }
    }
}
