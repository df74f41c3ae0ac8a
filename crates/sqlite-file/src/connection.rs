//! Connections to the file, and what every file of ours has: a table `meta` of names and values.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::rows::signed;

/// What the writer keeps of the file in memory, as SQLite's negative KiB:
/// enough for the index pages that new ids touch.
const CACHE_KIB: i64 = -4096;

/// The same for readers. They read what is new, once: a cache gains nothing.
const READ_CACHE_KIB: i64 = -256;

/// The log is moved into the file when it has so many bytes.
pub(crate) const CHECKPOINT_BYTES: u64 = 16 << 20;

/// How long to wait for another process that is writing (a redrive).
pub const BUSY: Duration = Duration::from_secs(5);

/// Opens a file that is there with what every connection needs.
///
/// # Errors
/// What SQLite says.
pub fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // It makes none: SQLite would make one that everybody can read.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "cache_size", CACHE_KIB)?;
    // Every commit is on the disk before anybody hears of it.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // A root that can't be written to has no room for temporary files.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // The writer checkpoints by itself: an automatic one hides its errors.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    // What a long reader made of the log does not stay.
    connection.pragma_update(None, "journal_size_limit", signed(CHECKPOINT_BYTES))?;
    // Nor does closing write: after a failed fsync nothing may be tried again.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_prepared_statement_cache_capacity(48);
    Ok(connection)
}

/// A connection that can't write.
///
/// # Errors
/// What SQLite says.
pub fn connect_to_read(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path)?;
    connection.pragma_update(None, "query_only", true)?;
    small_cache(&connection)?;
    Ok(connection)
}

/// How long one read may take: while it does, the log can't begin anew.
pub const READ_WITHIN: Duration = Duration::from_secs(30);

/// Has SQLite answer nothing more after this time, until this is said again.
///
/// # Errors
/// What SQLite says.
pub fn end_after(connection: &mut Connection, time: Duration) -> rusqlite::Result<()> {
    /// Steps of SQLite's machine between two looks at the time: some tenths of a millisecond.
    const LOOK_EVERY: i32 = 10_000;
    let until = Instant::now() + time;
    connection.progress_handler(LOOK_EVERY, Some(move || Instant::now() >= until))
}

/// For connections that read what is new, or little.
///
/// # Errors
/// What SQLite says.
pub fn small_cache(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "cache_size", READ_CACHE_KIB)
}

/// A value of the table `meta`.
///
/// # Errors
/// What SQLite says.
pub fn meta<T: rusqlite::types::FromSql>(connection: &Connection, key: &str) -> rusqlite::Result<Option<T>> {
    connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()
}

/// Sets a value of the table `meta`.
///
/// # Errors
/// What SQLite says.
pub fn set_meta(connection: &Connection, key: &str, value: impl rusqlite::ToSql) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute(rusqlite::params![key, value])
        .map(drop)
}

/// Bytes of the file that hold something.
///
/// # Errors
/// What SQLite says.
pub fn used_bytes(sql: &Connection) -> rusqlite::Result<u64> {
    let number = |name: &str| sql.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = number("page_count")? - number("freelist_count")?;
    Ok(u64::try_from(pages * number("page_size")?).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing else shows it where no power fails.
    #[test]
    fn every_connection_waits_for_the_disk_and_moves_no_log_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        std::fs::write(&path, "").unwrap();
        for connection in [connect(&path).unwrap(), connect_to_read(&path).unwrap()] {
            let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            // FULL; in a log of this kind it is one fsync for each commit.
            assert_eq!(number("synchronous"), Ok(2));
            assert_eq!(number("wal_autocheckpoint"), Ok(0));
            assert_eq!(connection.db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE), Ok(true));
        }
    }
}
