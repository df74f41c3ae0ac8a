//! Opening a file: by one process at a time, and never refused because of damage. A file that
//! can't be trusted is quarantined whole, and a new one created.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use event_model::Clock;
use rusqlite::{Connection, ErrorCode};

use crate::connection::{connect, meta};
use crate::error::{OpenError, io_error};
use crate::failure::is_corruption;
use crate::held_file::{self, HeldFile};
use crate::kind::{FileKind, prepare};
use crate::network::refuse_network;
use crate::paths::{beside, folder, resolve};
use crate::quarantine_file::{finish_quarantine, has_quarantined, quarantine_file};
use crate::rows::nanos;

/// Size, in bytes, up to which files are checked whole when they are opened; of larger ones, rows
/// are checked as they are read.
const CHECK_WHOLE: u64 = 256 << 20;

/// A file that this process alone has opened.
#[derive(Debug)]
pub struct OpenedFile {
    /// The connection for writing.
    pub sql: Connection,
    /// The path of the file, with links followed.
    pub path: PathBuf,
    /// The lock on the file, to be dropped after every connection.
    pub held: HeldFile,
    /// The new path of an earlier file that could not be trusted.
    pub set_aside: Option<PathBuf>,
}

/// Locks and opens the file at `path`, and creates it if it does not exist.
///
/// # Errors
/// If the file is served already, or is of another kind, or the disk refuses.
pub fn open(path: &Path, kind: &FileKind, clock: &dyn Clock) -> Result<OpenedFile, OpenError> {
    let into = folder(path);
    private_files::create_folder(into)
        .map_err(|source| io_error("making the folder", into, source))?;
    let asked = path;
    let path = &resolve(path)?;
    refuse_network(folder(path), path)?;
    // Checked before anything of ours is left beside the file.
    if let Some(found) = held_file::foreign(path) {
        return Err(OpenError::Foreign {
            path: path.clone(),
            found,
        });
    }
    // We leave the lock. Where there is one and no file, there was another file.
    let was_served = beside(path, ".lock").exists();
    let name = take_lock(path)?;
    let finished = finish_quarantine(path)?;
    close_to_others(path)?;
    let held = HeldFile::take(path, asked, name)?;
    match try_open(path, kind, clock, was_served) {
        Ok(sql) => {
            see_where_it_is(&held, path)?;
            Ok(OpenedFile {
                sql,
                path: path.clone(),
                held,
                set_aside: finished,
            })
        }
        Err(TryOpen::Damaged(why)) => {
            let aside = quarantine_file(path, clock)?;
            tracing::error!(
                why,
                set_aside = %aside.display(),
                advice = kind.advice,
                "the file can't be trusted: it was set aside and a new one begun"
            );
            // There is another file at the path now.
            let held = held.take_again()?;
            let sql = try_open(path, kind, clock, true).map_err(|error| error.at(path, kind))?;
            see_where_it_is(&held, path)?;
            Ok(OpenedFile {
                sql,
                path: path.clone(),
                held,
                set_aside: Some(aside),
            })
        }
        Err(error) => Err(error.at(path, kind)),
    }
}

/// Remembers the files beside this one from now on: by now there is a log.
fn see_where_it_is(held: &HeldFile, path: &Path) -> Result<(), OpenError> {
    match held.location().is_there() {
        true => Ok(()),
        false => Err(io_error(
            "finding again",
            path,
            io::Error::other("it was moved while it was opened"),
        )),
    }
}

/// Removes the rights of others, since SQLite gives the log and its index the mode that the file
/// has when they are created.
fn close_to_others(path: &Path) -> Result<(), OpenError> {
    for suffix in ["", "-wal", "-shm"] {
        let name = beside(path, suffix);
        let closed = match File::open(&name) {
            Ok(file) => private_files::close_to_others(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        closed.map_err(|source| io_error("closing to others", &name, source))?;
    }
    Ok(())
}

enum TryOpen {
    Damaged(String),
    AnotherFormat(i64),
    AnotherKind(&'static str),
    Foreign,
    Sqlite(rusqlite::Error),
}

impl TryOpen {
    fn at(self, path: &Path, kind: &FileKind) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::AnotherFormat(found) => another_format(path, found, kind.format),
            Self::AnotherKind(expected) => OpenError::AnotherKind { path, expected },
            Self::Foreign => OpenError::Foreign {
                path,
                found: "another program's SQLite file",
            },
            Self::Sqlite(source) => OpenError::Sqlite { path, source },
            Self::Damaged(why) => OpenError::Io {
                action: "making",
                path,
                source: io::Error::other(why),
            },
        }
    }
}

impl From<rusqlite::Error> for TryOpen {
    fn from(error: rusqlite::Error) -> Self {
        match is_corruption(&error) {
            // SQLite's error for tables that are not what they should be.
            true => Self::Damaged(error.to_string()),
            false if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
                Self::Damaged(error.to_string())
            }
            false => Self::Sqlite(error),
        }
    }
}

fn try_open(
    path: &Path,
    kind: &FileKind,
    clock: &dyn Clock,
    was_served: bool,
) -> Result<Connection, TryOpen> {
    if let Ok(why) = fs::read_to_string(beside(path, ".untrusted")) {
        return Err(TryOpen::Damaged(why));
    }
    let mut sql = connect(path)?;
    if check_foreign(&sql)? {
        return Err(TryOpen::Foreign);
    }
    if sql.table_exists(None, kind.not)? {
        return Err(TryOpen::AnotherKind(kind.name));
    }
    let follows = (was_served || has_quarantined(path)).then(|| nanos(clock.now()));
    let found = prepare(&mut sql, kind, follows)?;
    if found != kind.format {
        return Err(TryOpen::AnotherFormat(found));
    }
    let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
    if size <= CHECK_WHOLE {
        let verdict: String = sql.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(TryOpen::Damaged(verdict));
        }
    }
    (kind.check)(&sql)?;
    // The check has read everything, and its cache is of no use any more.
    sql.execute_batch("PRAGMA shrink_memory")?;
    Ok(sql)
}

fn another_format(path: PathBuf, found: i64, known: i64) -> OpenError {
    match found > known {
        true => OpenError::Newer { path, found, known },
        false => OpenError::Older { path, found, known },
    }
}

/// Opens an existing file of this kind, beside the process that serves it.
///
/// # Errors
/// If the file does not exist, or is of another kind or format.
pub fn open_beside(path: &Path, kind: &FileKind) -> Result<Connection, OpenError> {
    let wrap = |source| OpenError::Sqlite {
        path: path.to_owned(),
        source,
    };
    if !path.exists() {
        return Err(OpenError::Missing {
            path: path.to_owned(),
            expected: kind.name,
        });
    }
    let sql = connect(path).map_err(wrap)?;
    let is_another = sql.table_exists(None, kind.not).map_err(wrap)?;
    if is_another {
        return Err(OpenError::AnotherKind {
            path: path.to_owned(),
            expected: kind.name,
        });
    }
    let is_ours = sql.table_exists(None, "meta").map_err(wrap)?;
    let format = if is_ours {
        meta(&sql, "format").map_err(wrap)?
    } else {
        None
    };
    match format {
        Some(found) if found == kind.format => Ok(sql),
        Some(found) => Err(another_format(path.to_owned(), found, kind.format)),
        None => Err(OpenError::Missing {
            path: path.to_owned(),
            expected: kind.name,
        }),
    }
}

/// Whether the file has tables, but not ours.
fn check_foreign(sql: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 = sql.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables > 0 && !sql.table_exists(None, "meta")?)
}

fn take_lock(path: &Path) -> Result<File, OpenError> {
    let name = beside(path, ".lock");
    let file = private_files::create(&name).map_err(|source| io_error("making", &name, source))?;
    private_files::close_to_others(&file)
        .map_err(|source| io_error("closing to others", &name, source))?;
    held_file::lock(&file, path)?;
    Ok(file)
}
