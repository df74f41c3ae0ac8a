//! Kinds of files: their tables and formats.

use rusqlite::Connection;

use crate::connection::{meta, set_meta};

/// The number by which SQLite's own part of a file says that it is ours: `FLWH`.
pub(crate) const OURS: i32 = 0x464C_5748;

/// A kind of file.
#[derive(Debug)]
pub struct FileKind {
    /// SQL that creates the tables of a new file.
    pub tables: &'static [&'static str],
    /// The name of the kind.
    pub name: &'static str,
    /// A table by which a file of the other kind is recognized.
    pub not: &'static str,
    /// The number of its format.
    pub format: i64,
    /// Prepares a new file that follows another at its path, at a time in Unix nanoseconds.
    pub follow: fn(&Connection, i64) -> rusqlite::Result<()>,
    /// Reads everything that must be readable.
    pub check: fn(&Connection) -> rusqlite::Result<()>,
    /// Advice about a quarantined file, for the log.
    pub advice: &'static str,
}

/// Creates the tables if there are none, and returns the format of the file. `follows` is the
/// time, if a new file follows another at its path.
pub(crate) fn prepare(
    connection: &mut Connection,
    kind: &FileKind,
    follows: Option<i64>,
) -> rusqlite::Result<i64> {
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    if pages == 0 {
        // Before there is a log: a crash must not leave a file that is not known as ours.
        connection.pragma_update(None, "application_id", OURS)?;
    }
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    debug_assert_eq!(mode, "wal");
    if connection.table_exists(None, "meta")? {
        return Ok(meta(connection, "format")?.unwrap_or_default());
    }
    let transaction = connection.transaction()?;
    kind.tables
        .iter()
        .try_for_each(|tables| transaction.execute_batch(tables))?;
    set_meta(
        &transaction,
        "epoch",
        format!("{:016x}", fastrand::u64(1..)),
    )?;
    follows.map_or(Ok(()), |now| (kind.follow)(&transaction, now))?;
    set_meta(&transaction, "format", kind.format)?;
    transaction.commit()?;
    Ok(kind.format)
}
