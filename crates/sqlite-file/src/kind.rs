//! What a file holds: its tables, and their format.

use rusqlite::Connection;

use crate::connection::{meta, set_meta};

/// What a file holds.
#[derive(Debug)]
pub struct FileKind {
    /// What makes the tables of a new file.
    pub tables: &'static [&'static str],
    /// What it is called.
    pub name: &'static str,
    /// A table by which the other kind is known.
    pub not: &'static str,
    /// The number of its format.
    pub format: i64,
    /// Begins a new file where one was set aside, at a time.
    pub follow: fn(&Connection, i64) -> rusqlite::Result<()>,
    /// Reads what must be readable.
    pub check: fn(&Connection) -> rusqlite::Result<()>,
    /// What to do with one that was set aside.
    pub advice: &'static str,
}

/// Makes the tables where there are none, and says which format is there. `follows` is when, if
/// a new file would follow one that was set aside.
pub(crate) fn prepare(
    connection: &mut Connection,
    kind: &FileKind,
    follows: Option<i64>,
) -> rusqlite::Result<i64> {
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    debug_assert_eq!(mode, "wal");
    if connection.table_exists(None, "meta")? {
        return Ok(meta(connection, "format")?.unwrap_or_default());
    }
    let transaction = connection.transaction()?;
    kind.tables.iter().try_for_each(|tables| transaction.execute_batch(tables))?;
    set_meta(&transaction, "epoch", format!("{:016x}", fastrand::u64(1..)))?;
    follows.map_or(Ok(()), |now| (kind.follow)(&transaction, now))?;
    set_meta(&transaction, "format", kind.format)?;
    transaction.commit()?;
    Ok(kind.format)
}
