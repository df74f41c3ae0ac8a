//! Opening the file: one process at a time, and never closed because of the
//! past. What can't be trusted is set aside whole, and a new file begun.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use event_model::Clock;
use queue::{DeadReason, Outcome};
use rusqlite::{Connection, ErrorCode, params};

use crate::beside::letters::count_on;
use crate::file::failure::condemns;
use crate::file::held::{self, HeldFile};
use crate::file::rows::{nanos, unsigned};
use crate::file::schema::{ALL, FORMAT, Kind, connect, last_position, prepare, upgrade};
use crate::shared::{LeaseKey, Shared};
use crate::writing::settle::{bury, ended, record};
use crate::writing::writer::Store;

/// What a file is called by that was set aside: its name, this, and when.
const DAMAGED: &str = ".damaged-";

/// Files up to this size are checked whole at the door; of larger ones, rows
/// are checked as they are read.
const CHECK_WHOLE: u64 = 256 << 20;

/// `f_type` of file systems on which SQLite's log is unsafe: NFS, SMB, SMB2,
/// CIFS, AFS, Ceph, Coda (linux/magic.h).
const NETWORK_FILE_SYSTEMS: [u64; 7] =
    [0x6969, 0x517B, 0xFE53_4D42, 0xFF53_4D42, 0x5346_414F, 0x00C3_6400, 0x7375_7245];

/// Why the queue can't be opened here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process serves this file.
    #[error("{0} is being served by another process; stop that one, or give this one a path of its own")]
    InUse(PathBuf),
    /// SQLite's log needs shared memory, which network file systems lack.
    #[error("{0} is on a network file system, where SQLite loses data: expected a local disk")]
    NetworkFileSystem(PathBuf),
    /// Written by a newer version of this program.
    #[error(
        "{path} has format {found}, this program knows {known}: use the version that wrote it, or a newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// It holds something else.
    #[error("{path} is not a {expected}'s file but another of ours: expected the path of a {expected}")]
    AnotherKind {
        /// The file.
        path: PathBuf,
        /// What was to be opened.
        expected: &'static str,
    },
    /// Another program's.
    #[error(
        "{path} is {found}, and was left as it is: expected a file of this program, or a path where there is none yet"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        found: &'static str,
    },
    /// The operating system refused.
    #[error("{action} {path}")]
    Io {
        /// What was being attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// SQLite refused, on a new file too.
    #[error("opening {path}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
}

/// A queue.
pub(crate) const QUEUE: Kind = Kind {
    tables: &ALL,
    name: "queue",
    not: "spooled",
    format: FORMAT,
    upgrade,
    follow: count_on,
    check: |sql| last_position(sql).map(drop),
    advice: "run `fluent-webhooks salvage` on it",
};

/// The file, opened by us alone.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) sql: Connection,
    /// Where it is, links followed.
    pub(crate) path: PathBuf,
    pub(crate) held: HeldFile,
    /// Where a file went that could not be trusted.
    pub(crate) set_aside: Option<PathBuf>,
}

/// Locks and opens the file at `path`, making it where there is none.
pub(crate) fn open(path: &Path, kind: &Kind, clock: &dyn Clock) -> Result<Opened, OpenError> {
    let folder = held::folder(path);
    private_files::create_folder(folder).map_err(|source| io_error("making the folder", folder, source))?;
    let (asked, path) = (path, &held::resolve(path)?);
    refuse_network(held::folder(path), path)?;
    // Before anything of ours is left beside it.
    if let Some(found) = held::foreign(path) {
        return Err(OpenError::Foreign { path: path.clone(), found });
    }
    let name = take_lock(path)?;
    let finished = finish_setting_aside(path)?;
    close_to_others(path)?;
    let held = HeldFile::take(path, asked, name)?;
    match try_open(path, kind, clock) {
        Ok(sql) => {
            see_where_it_is(&held, path)?;
            Ok(Opened { sql, path: path.clone(), held, set_aside: finished })
        }
        Err(TryOpen::Damaged(why)) => {
            let aside = set_aside(path, clock)?;
            tracing::error!(
                why,
                set_aside = %aside.display(),
                advice = kind.advice,
                "the file can't be trusted: it was set aside and a new one begun"
            );
            // It is another file now.
            let held = held.take_again()?;
            let sql = try_open(path, kind, clock).map_err(|error| error.at(path))?;
            see_where_it_is(&held, path)?;
            Ok(Opened { sql, path: path.clone(), held, set_aside: Some(aside) })
        }
        Err(error) => Err(error.at(path)),
    }
}

/// Remembers what is beside the file from now on: by then there is a log.
fn see_where_it_is(held: &HeldFile, path: &Path) -> Result<(), OpenError> {
    match held.place().is_there() {
        true => Ok(()),
        false => Err(io_error("finding again", path, io::Error::other("it was moved while it was opened"))),
    }
}

/// SQLite gives the log and its index the mode that the file has when they are made.
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
    Newer { found: i64, known: i64 },
    AnotherKind(&'static str),
    Foreign,
    Sqlite(rusqlite::Error),
}

impl TryOpen {
    fn at(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Newer { found, known } => OpenError::Newer { path, found, known },
            Self::AnotherKind(expected) => OpenError::AnotherKind { path, expected },
            Self::Foreign => OpenError::Foreign { path, found: "another program's SQLite file" },
            Self::Sqlite(source) => OpenError::Sqlite { path, source },
            Self::Damaged(why) => OpenError::Io { action: "making", path, source: io::Error::other(why) },
        }
    }
}

impl From<rusqlite::Error> for TryOpen {
    fn from(error: rusqlite::Error) -> Self {
        match condemns(&error) {
            // SQLite's word for tables that are not what they should be.
            true => Self::Damaged(error.to_string()),
            false if error.sqlite_error_code() == Some(ErrorCode::Unknown) => {
                Self::Damaged(error.to_string())
            }
            false => Self::Sqlite(error),
        }
    }
}

fn try_open(path: &Path, kind: &Kind, clock: &dyn Clock) -> Result<Connection, TryOpen> {
    if let Ok(why) = fs::read_to_string(beside(path, ".untrusted")) {
        return Err(TryOpen::Damaged(why));
    }
    let mut sql = connect(path, true)?;
    if is_foreign(&sql)? {
        return Err(TryOpen::Foreign);
    }
    if sql.table_exists(None, kind.not)? {
        return Err(TryOpen::AnotherKind(kind.name));
    }
    let follows = has_set_aside(path).then(|| nanos(clock.now()));
    let found = prepare(&mut sql, kind, follows)?;
    if found > kind.format {
        return Err(TryOpen::Newer { found, known: kind.format });
    }
    let size = fs::metadata(path).map_or(0, |metadata| metadata.len());
    if size <= CHECK_WHOLE {
        let verdict: String = sql.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(TryOpen::Damaged(verdict));
        }
    }
    (kind.check)(&sql)?;
    // The check has read everything; what it kept of it is of no use.
    sql.execute_batch("PRAGMA shrink_memory")?;
    Ok(sql)
}

/// Whether there are tables, and none of ours.
fn is_foreign(sql: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 = sql.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(tables > 0 && !sql.table_exists(None, "meta")?)
}

fn refuse_network(folder: &Path, path: &Path) -> Result<(), OpenError> {
    let system = rustix::fs::statfs(folder).map_err(|error| io_error("looking at", folder, error.into()))?;
    let kind = u64::try_from(system.f_type).unwrap_or(0) & 0xFFFF_FFFF;
    if NETWORK_FILE_SYSTEMS.contains(&kind) {
        return Err(OpenError::NetworkFileSystem(path.to_owned()));
    }
    Ok(())
}

fn take_lock(path: &Path) -> Result<File, OpenError> {
    let name = beside(path, ".lock");
    let file = private_files::create(&name).map_err(|source| io_error("making", &name, source))?;
    private_files::close_to_others(&file).map_err(|source| io_error("closing to others", &name, source))?;
    held::lock(&file, path)?;
    Ok(file)
}

/// A file and its log go together: without its log it would be another one. So
/// it is written down where they go, and what a crash left half done is finished.
fn set_aside(path: &Path, clock: &dyn Clock) -> Result<PathBuf, OpenError> {
    let (stamp, plan) = (clock.now().as_millisecond(), beside(path, ".setting-aside"));
    let io = |source| io_error("writing", &plan, source);
    private_files::write(&plan, stamp.to_string())
        .and_then(|()| File::open(&plan)?.sync_all())
        .map_err(io)?;
    finish_setting_aside(path).map(|aside| aside.unwrap_or_else(|| path.to_owned()))
}

/// Where a file went that was being set aside, if one was.
fn finish_setting_aside(path: &Path) -> Result<Option<PathBuf>, OpenError> {
    let plan = beside(path, ".setting-aside");
    let Ok(stamp) = fs::read_to_string(&plan) else { return Ok(None) };
    // A plan that was not written whole was not begun.
    if stamp.is_empty() || !stamp.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(fs::remove_file(&plan).ok().and(None));
    }
    let aside = beside(path, &format!("{DAMAGED}{stamp}"));
    for suffix in ["-wal", "-shm", ""] {
        let (from, to) = (beside(path, suffix), beside(&aside, suffix));
        if from.exists() {
            fs::rename(&from, &to).map_err(|source| io_error("setting aside", &from, source))?;
        }
    }
    let _ = fs::remove_file(beside(path, ".untrusted"));
    fs::remove_file(&plan).map_err(|source| io_error("removing", &plan, source))?;
    Ok(Some(aside))
}

/// Whether a file was set aside here before. Who set it aside may have died since.
fn has_set_aside(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    let is_one = |other: OsString| {
        let end = other.as_encoded_bytes().strip_prefix(name);
        end.is_some_and(|end| end.starts_with(DAMAGED.as_bytes()))
    };
    let beside = fs::read_dir(held::folder(path)).into_iter().flatten().flatten();
    beside.map(|entry| entry.file_name()).any(is_one)
}

/// Leaves word for the next start that this file must not be believed.
pub(crate) fn mark_untrusted(path: &Path, why: &str) {
    let name = beside(path, ".untrusted");
    let written = private_files::write(&name, why).and_then(|()| File::open(&name)?.sync_all());
    if let Err(error) = written {
        tracing::error!(%error, file = %name.display(), "no word could be left for the next start");
    }
}

/// `path` with `suffix` at its end.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(suffix);
    name.into()
}

pub(crate) fn io_error(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { action, path: path.to_owned(), source }
}

/// Takes up what the last process left in the middle of an attempt.
///
/// What ran alone when the process died killed it, and becomes a dead letter;
/// everything else waits for its next attempt, with one more death counted.
pub(crate) fn recover(sql: &mut Connection, shared: &Shared) -> rusqlite::Result<()> {
    let left = left_in_flight(sql)?;
    let transaction = sql.transaction()?;
    let mut last = last_position(&transaction)?;
    let store = Store { sql: &transaction, last: &mut last, shared, now: shared.now() };
    for left in left {
        take_up(&store, &left)?;
    }
    transaction.commit()
}

struct Left {
    key: LeaseKey,
    attempt: u32,
    since: i64,
    alone: bool,
}

fn left_in_flight(sql: &Connection) -> rusqlite::Result<Vec<Left>> {
    // Of routes that have some: what waits may be a million.
    sql.prepare(
        "SELECT d.route, d.position, d.redrive, d.attempt, d.at, d.alone
         FROM routes r CROSS JOIN deliveries d ON d.route = r.id WHERE r.in_flight > 0 AND d.in_flight = 1",
    )?
    .query_map([], |row| {
        let key = LeaseKey { route: row.get(0)?, position: unsigned(row.get(1)?), redrive: row.get(2)? };
        Ok(Left { key, attempt: row.get(3)?, since: row.get(4)?, alone: row.get(5)? })
    })?
    .collect()
}

fn take_up(store: &Store<'_>, left: &Left) -> rusqlite::Result<()> {
    let key = left.key;
    record(store, key, left.attempt, &ended(left.since, store.now, Outcome::Died))?;
    let row = params![key.route, crate::file::rows::signed(key.position), key.redrive, store.now];
    if left.alone {
        tracing::error!(
            position = key.position,
            "an event was alone in flight when the process died: it is a dead letter now"
        );
        bury(
            store,
            key,
            left.attempt,
            DeadReason::Crash,
            Some("the process died while this event was attempted alone"),
        )?;
        return store
            .sql
            .execute(
                "DELETE FROM deliveries WHERE route = ?1 AND position = ?2 AND redrive = ?3 AND ?4 > 0",
                row,
            )
            .map(drop);
    }
    store
        .sql
        .execute(
            "UPDATE deliveries SET in_flight = 0, deaths = deaths + 1, at = ?4
             WHERE route = ?1 AND position = ?2 AND redrive = ?3",
            row,
        )
        .map(drop)
}
