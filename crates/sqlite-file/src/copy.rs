//! A copy of a file, of one moment, made beside the process that serves it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode};

use crate::connection::connect;
use crate::error::OpenError;
use crate::kind::FileKind;
use crate::open::open_beside;
use crate::paths::{beside, folder};

/// Reason why a file can't be copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The file to copy can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is something where the copy was to be.
    #[error("{0} is there already, and was left as it is: give a place where there is nothing yet")]
    Exists(PathBuf),
    /// The operating system reported an error.
    #[error("writing {path}")]
    Io {
        /// The copy.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// SQLite reported an error: most often that the disk is full.
    #[error("copying to {path}")]
    Sqlite {
        /// The copy.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// The file, or its disk, is damaged.
    #[error("{path} can't be copied whole, since it or its disk is damaged: {found}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// SQLite's first finding.
        found: String,
    },
}

/// Copies the file at `from`, as it is at one moment, to `to`, where nothing may be yet. Another
/// process may serve it meanwhile and is not held up, but its log grows until the copy is made.
///
/// `finish` prepares the copy to be served in its turn. The copy has its name only once it is
/// whole, checked and on the disk, and is its owner's alone.
///
/// # Errors
/// If the file can't be read, is damaged, or the copy can't be written; there is no copy then.
pub fn copy<T>(
    from: &Path,
    kind: &FileKind,
    to: &Path,
    finish: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, CopyError> {
    if to.symlink_metadata().is_ok() {
        return Err(CopyError::Exists(to.to_owned()));
    }
    let sql = open_beside(from, kind)?;
    let partial = beside(to, ".partial");
    let made = write(&sql, from, &partial, finish);
    let named = made.and_then(|made| {
        let named = sync(&partial).and_then(|()| fs::rename(&partial, to));
        let synced = named.and_then(|()| sync(folder(to)));
        let synced = synced.map_err(|source| io_error(to, source));
        synced.map(|()| made)
    });
    if named.is_err() {
        let _ = fs::remove_file(&partial);
    }
    named
}

fn write<T>(
    sql: &Connection,
    from: &Path,
    partial: &Path,
    finish: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, CopyError> {
    // SQLite would make it with a mode of its own, and takes an empty file for none.
    let made = private_files::open_options()
        .write(true)
        .create_new(true)
        .open(partial);
    made.map_err(|source| io_error(partial, source))?;
    let wrap = |source| CopyError::Sqlite {
        path: partial.to_owned(),
        source,
    };
    let Some(name) = partial.to_str() else {
        let source = io::Error::other("expected a path in UTF-8");
        return Err(io_error(partial, source));
    };
    // One read transaction, however much is written meanwhile.
    sql.execute("VACUUM INTO ?1", [name])
        .map_err(|source| match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => CopyError::Damaged {
                path: from.to_owned(),
                found: source.to_string(),
            },
            _ => wrap(source),
        })?;
    let copy = connect(partial).map_err(wrap)?;
    let found: String = copy
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(wrap)?;
    if found != "ok" {
        let path = from.to_owned();
        return Err(CopyError::Damaged { path, found });
    }
    let transaction = copy.unchecked_transaction().map_err(wrap)?;
    let finished = finish(&transaction).map_err(wrap)?;
    transaction.commit().map_err(wrap)?;
    Ok(finished)
}

/// Waits until a file, or the names in a folder, are on the disk.
fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn io_error(path: &Path, source: io::Error) -> CopyError {
    CopyError::Io {
        path: path.to_owned(),
        source,
    }
}
