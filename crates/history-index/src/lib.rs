//! A searchable index of a queue elsewhere, in a SQLite file: refs as digests, and attempts by
//! their event.

use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use event_model::EventId;
use queue::{
    BoxError, HistoryIndex, IndexProgress, IndexedAttempt, IndexedEvent, Log, Position, QueueError,
};
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use sqlite_file::rows::{packed, position, prefix};
use sqlite_file::{FileOrigin, beside, digest, lock, prefixes};

const INDEXING: &str = "working with the index of events";

/// The number by which SQLite's own part of the file says that it is an index of ours: `FLWI`.
const OURS: i32 = 0x464C_5749;

/// Version of the format. An index of another version is built again.
const FORMAT: i64 = 3;

const TABLES: &str = "
-- The generation is another one each time that the log is read from the start.
CREATE TABLE IF NOT EXISTS logs (
    log TEXT PRIMARY KEY, life TEXT NOT NULL, last INTEGER NOT NULL, generation INTEGER NOT NULL
) WITHOUT ROWID;
-- Read through as a whole: a million rows are some 40 MB.
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY, prefix INTEGER NOT NULL, entity INTEGER, root INTEGER, fluent INTEGER,
    id BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS attempts (
    position INTEGER NOT NULL, line INTEGER NOT NULL, prefix INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (position, line)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attempts_by_event ON attempts (prefix);
";

/// An index in a SQLite file, behind the port [`HistoryIndex`].
#[derive(Debug)]
pub struct Index {
    sql: Mutex<Connection>,
    path: PathBuf,
}

impl Index {
    /// Opens the index, or creates it. An index that is damaged, or of another format, is removed
    /// and created again: everything in it can be read from the queue again. A damaged file that may
    /// be another program's is kept beside it, as `….damaged`.
    pub fn open(path: &Path) -> Result<Self, QueueError> {
        if let Some(folder) = path.parent() {
            private_files::create_folder(folder)
                .map_err(|error| QueueError::unavailable(INDEXING, error))?;
        }
        let opened = match open(path) {
            Err(error) if error.asks_for_new() => begin_anew(path),
            opened => opened,
        };
        let sql = Mutex::new(opened.map_err(failed)?);
        let path = path.to_owned();
        Ok(Self { sql, path })
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, QueueError> {
        let mut sql = lock(&self.sql);
        read(&sql).map_err(|error| self.give_up(&mut sql, error))
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, QueueError> {
        let mut sql = lock(&self.sql);
        // Another process may be writing: whoever has read first does not wait for it.
        let written = sql
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|transaction| {
                let result = write(&transaction)?;
                transaction.commit()?;
                Ok(result)
            });
        written.map_err(|error| self.give_up(&mut sql, error))
    }

    /// Writes to a log's index of this generation, and to no other.
    fn write_to(
        &self,
        log: Log,
        generation: i64,
        write: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), QueueError> {
        let is_written = self.write(|sql| {
            let is_it = known(sql, log)?.generation == generation;
            if is_it {
                write(sql)?;
            }
            Ok(is_it)
        })?;
        match is_written {
            true => Ok(()),
            false => Err(failed(MadeAnew)),
        }
    }

    /// Begins an empty index if this error says that the file is damaged, so that it is read again
    /// from the queue. A damaged page may be found long after the file was opened.
    fn give_up(&self, sql: &mut Connection, error: rusqlite::Error) -> QueueError {
        if is_damage(&error)
            && let Ok(none) = Connection::open_in_memory()
        {
            // Closed before its files are removed.
            drop(mem::replace(sql, none));
            match begin_anew(&self.path) {
                Ok(anew) => *sql = anew,
                Err(error) => return failed(error),
            }
        }
        failed(error)
    }
}

/// The reason why what was read is not added.
#[derive(Debug, thiserror::Error)]
#[error("it was made anew while the queue was read for it")]
struct MadeAnew;

fn failed(error: impl Into<BoxError>) -> QueueError {
    QueueError::unavailable(INDEXING, error)
}

/// Reason why an index can't be opened.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error(
        "it is no index of this program, and was left as it is: expected a path where there is none yet"
    )]
    Foreign,
    #[error("it has format {0}, and this program works with {FORMAT}")]
    AnotherFormat(i64),
    #[error("making the file")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

impl OpenError {
    /// Whether the file must be created again, since it is damaged or of another format.
    fn asks_for_new(&self) -> bool {
        use rusqlite::ErrorCode::Unknown;
        match self {
            Self::Foreign | Self::Io(_) => false,
            Self::AnotherFormat(_) => true,
            // SQLite's error for tables that are not what they should be.
            Self::Sqlite(error) => is_damage(error) || error.sqlite_error_code() == Some(Unknown),
        }
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let code = error.sqlite_error_code();
    matches!(code, Some(DatabaseCorrupt | NotADatabase))
}

fn open(path: &Path) -> Result<Connection, OpenError> {
    // Looked at before anything is changed, its rights included.
    let origin = FileOrigin::of(path);
    match origin {
        FileOrigin::Nobody | FileOrigin::Sqlite { application: OURS } => {}
        FileOrigin::Sqlite { .. } => refuse_readable(path)?,
        FileOrigin::Other => return Err(OpenError::Foreign),
    }
    private_files::prepare(path)?;
    let sql = Connection::open(path)?;
    sql.busy_timeout(std::time::Duration::from_secs(10))?;
    if origin == FileOrigin::Nobody {
        // Before there is a log: a crash must not leave a file that is not known as ours.
        sql.pragma_update(None, "application_id", OURS)?;
    }
    sql.pragma_update(None, "journal_mode", "WAL")?;
    // A lost write is read again from the queue, but a damaged file must not happen: NORMAL is
    // enough for that.
    sql.pragma_update(None, "synchronous", "NORMAL")?;
    sql.pragma_update(None, "cache_size", -65_536)?;
    let format: i64 = sql.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if format != 0 && format != FORMAT {
        return Err(OpenError::AnotherFormat(format));
    }
    sql.execute_batch(TABLES)?;
    sql.pragma_update(None, "user_version", FORMAT)?;
    Ok(sql)
}

/// Fails for a file without our number: as damaged, or as another program's, if it can be read.
fn refuse_readable(path: &Path) -> Result<(), OpenError> {
    let sql = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    sql.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Err(OpenError::Foreign)
}

fn begin_anew(path: &Path) -> Result<Connection, OpenError> {
    if FileOrigin::of(path) != (FileOrigin::Sqlite { application: OURS }) {
        // Whose it was can't be told any more.
        std::fs::rename(path, beside(path, ".damaged"))?;
    }
    tracing::warn!(file = %path.display(), "the index of events can't be used: it is made anew");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(beside(path, suffix));
    }
    open(path)
}

fn name(log: Log) -> &'static str {
    match log {
        Log::Events => "events",
        Log::Attempts => "attempts",
    }
}

fn known(sql: &Connection, log: Log) -> rusqlite::Result<IndexProgress> {
    let known = sql
        .query_row(
            "SELECT life, last, generation FROM logs WHERE log = ?1",
            [name(log)],
            |row| {
                Ok(IndexProgress {
                    life: row.get(0)?,
                    last: position(row.get(1)?).unwrap_or_default(),
                    generation: row.get(2)?,
                })
            },
        )
        .optional();
    known.map(Option::unwrap_or_default)
}

fn note(sql: &Connection, log: Log, last: Position) -> rusqlite::Result<()> {
    sql.prepare_cached("UPDATE logs SET last = max(last, ?2) WHERE log = ?1")?
        .execute(params![name(log), packed(last)])
        .map(drop)
}

impl HistoryIndex for Index {
    fn known(&self, log: Log) -> Result<IndexProgress, QueueError> {
        self.read(|sql| known(sql, log))
    }

    fn begin(
        &self,
        log: Log,
        life: &str,
        before: &IndexProgress,
    ) -> Result<IndexProgress, QueueError> {
        self.write(|sql| {
            if known(sql, log)?.generation == before.generation {
                sql.execute(&format!("DELETE FROM {}", name(log)), [])?;
                sql.execute(
                    "INSERT OR REPLACE INTO logs VALUES (?1, ?2, 0, random() | 1)",
                    [name(log), life],
                )?;
            }
            known(sql, log)
        })
    }

    fn add_events(
        &self,
        generation: i64,
        events: &[IndexedEvent],
        last: Position,
    ) -> Result<(), QueueError> {
        self.write_to(Log::Events, generation, |sql| {
            let mut insert = sql
                .prepare_cached("INSERT OR REPLACE INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
            for event in events {
                let refs = [&event.entity, &event.root, &event.fluent]
                    .map(|text| text.as_deref().map(digest));
                let id = event.id.as_bytes();
                let position = packed(event.position);
                insert.execute(params![
                    position,
                    prefix(&event.id),
                    refs[0],
                    refs[1],
                    refs[2],
                    id
                ])?;
            }
            note(sql, Log::Events, last)
        })
    }

    fn add_attempts(
        &self,
        generation: i64,
        attempts: &[IndexedAttempt],
        last: Position,
    ) -> Result<(), QueueError> {
        self.write_to(Log::Attempts, generation, |sql| {
            let mut insert =
                sql.prepare_cached("INSERT OR REPLACE INTO attempts VALUES (?1, ?2, ?3, ?4)")?;
            let mut position = Position::START;
            let mut line = 0_i64;
            for attempt in attempts {
                line = if attempt.position == position {
                    line + 1
                } else {
                    0
                };
                position = attempt.position;
                insert.execute(params![
                    packed(position),
                    line,
                    prefix(&attempt.id),
                    attempt.line
                ])?;
            }
            note(sql, Log::Attempts, last)
        })
    }

    fn trim(&self, log: Log, generation: i64, first: Position) -> Result<(), QueueError> {
        let text = format!(
            "DELETE FROM {} WHERE position BETWEEN ?1 AND ?2 - 1",
            name(log)
        );
        // Only in the shard of `first`, since other shards begin elsewhere.
        let begin = Position::new(first.shard(), 0)?;
        self.write_to(log, generation, |sql| {
            sql.prepare_cached(&text)?
                .execute([packed(begin), packed(first)])
                .map(drop)
        })
    }

    fn find(
        &self,
        reference: &str,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<(Position, EventId)>, QueueError> {
        let before = before.map_or(i64::MAX, |before| before.packed().cast_signed());
        let range = prefixes(reference);
        let from = range.map(|(from, _)| from);
        let to = range.map(|(_, to)| to);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(|sql| {
            sql.prepare_cached(
                "SELECT position, id FROM events
                 WHERE (entity = ?1 OR root = ?1 OR fluent = ?1 OR prefix BETWEEN ?2 AND ?3)
                   AND position < ?5
                 ORDER BY position DESC LIMIT ?4",
            )?
            .query_map(params![digest(reference), from, to, limit, before], |row| {
                let id: Vec<u8> = row.get(1)?;
                Ok((row.get(0)?, id))
            })?
            .filter_map(|row| {
                row.map(|(at, id)| Some((position(at)?, EventId::from_bytes(&id).ok()?)))
                    .transpose()
            })
            .collect()
        })
    }

    fn attempts(&self, id: EventId) -> Result<Vec<Vec<u8>>, QueueError> {
        self.read(|sql| {
            sql.prepare_cached(
                "SELECT data FROM attempts WHERE prefix = ?1 ORDER BY position, line",
            )?
            .query_map([prefix(&id)], |row| row.get(0))?
            .collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use event_model::Environment;

    use super::*;

    fn at(sequence: u64) -> Position {
        Position::new(0, sequence).unwrap()
    }

    fn event(position: u64, entity: &str, root: Option<&str>) -> IndexedEvent {
        let id = EventId::of(Environment::Sandbox, &position.to_be_bytes());
        IndexedEvent {
            position: at(position),
            id,
            entity: Some(entity.to_owned()),
            root: root.map(str::to_owned),
            fluent: Some(format!("own-{position}")),
        }
    }

    /// Begins the index of a log anew, and returns its generation.
    fn begin(index: &Index, log: Log, life: &str) -> i64 {
        let known = index.known(log).unwrap();
        index.begin(log, life, &known).unwrap().generation
    }

    /// Its reader went on while another process began anew.
    #[test]
    fn what_was_read_for_an_older_index_is_not_added_to_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.db");
        let paused = Index::open(&path).unwrap();
        let older = begin(&paused, Log::Events, "a");
        paused
            .add_events(older, &[event(1, "HD_1", None)], at(1))
            .unwrap();
        let other = Index::open(&path).unwrap();
        let newer = begin(&other, Log::Events, "a");
        let late = paused.add_events(older, &[event(900, "HD_1", None)], at(900));
        assert!(
            matches!(late, Err(QueueError::Unavailable { .. })),
            "{late:?}"
        );
        assert!(paused.trim(Log::Events, older, at(900)).is_err());
        let progress = other.known(Log::Events).unwrap();
        assert_eq!(
            (progress.last, progress.generation),
            (Position::START, newer)
        );
        assert!(other.find("HD_1", None, 9).unwrap().is_empty());
        other
            .add_events(newer, &[event(1, "HD_1", None)], at(1))
            .unwrap();
        assert_eq!(other.find("HD_1", None, 9).unwrap().len(), 1);
    }

    #[test]
    fn of_two_that_begin_at_once_one_begins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.db");
        let [one, other] = [(); 2].map(|()| Index::open(&path).unwrap());
        let seen = other.known(Log::Events).unwrap();
        let generation = begin(&one, Log::Events, "a");
        one.add_events(generation, &[event(1, "HD_1", None)], at(1))
            .unwrap();
        let begun = other.begin(Log::Events, "a", &seen).unwrap();
        assert_eq!((begun.generation, begun.last), (generation, at(1)));
        assert_eq!(other.find("HD_1", None, 9).unwrap().len(), 1);
    }

    #[test]
    fn it_finds_by_refs_and_ids_and_forgets_what_it_is_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/index.db");
        let index = Index::open(&path).unwrap();
        assert_eq!(index.known(Log::Events).unwrap(), IndexProgress::default());
        let generation = begin(&index, Log::Events, "a");
        let events = [
            event(1, "F_1", Some("HD_1")),
            event(2, "HD_1", None),
            event(3, "HD_2", None),
        ];
        for _ in 0..2 {
            index.add_events(generation, &events, at(7)).unwrap();
        }
        let found = |reference: &str| {
            index
                .find(reference, None, 9)
                .unwrap()
                .into_iter()
                .map(|(at, _)| at)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (found("HD_1"), found("F_1"), found("HD_3")),
            (vec![at(2), at(1)], vec![at(1)], vec![])
        );
        let before = index.find("HD_1", Some(at(2)), 9).unwrap();
        assert_eq!(before.first().map(|(at, _)| *at), Some(at(1)));
        assert_eq!(found(&events[2].id.to_string()[..8]), [at(3)]);
        assert_eq!(found("own-2"), [at(2)], "Fluent's own id");
        let attempt = |position, line: &[u8]| IndexedAttempt {
            position: at(position),
            id: events[1].id,
            line: line.into(),
        };
        let attempts = begin(&index, Log::Attempts, "b");
        index
            .add_attempts(
                attempts,
                &[attempt(1, b"x"), attempt(1, b"y"), attempt(2, b"z")],
                at(2),
            )
            .unwrap();
        assert_eq!(index.attempts(events[1].id).unwrap(), [b"x", b"y", b"z"]);
        index.trim(Log::Events, generation, at(3)).unwrap();
        drop(index);
        let index = Index::open(&path).unwrap();
        assert_eq!(
            index.known(Log::Events).unwrap(),
            IndexProgress {
                life: "a".to_owned(),
                last: at(7),
                generation,
            }
        );
        assert!(index.find("HD_1", None, 9).unwrap().is_empty());
        begin(&index, Log::Events, "c");
        assert!(index.find("HD_2", None, 9).unwrap().is_empty());
    }

    /// Opening reads a few pages only.
    #[test]
    fn an_index_whose_damage_is_found_later_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.db");
        let events: Vec<_> = (1..2000)
            .map(|number| event(number, "HD_1", None))
            .collect();
        let index = Index::open(&path).unwrap();
        let generation = begin(&index, Log::Events, "first");
        index.add_events(generation, &events, at(1999)).unwrap();
        drop(index);
        let mut bytes = std::fs::read(&path).unwrap();
        let pages = bytes.len() / 4096;
        // All but the pages that are read first.
        bytes[pages / 2 * 4096..].fill(0xA5);
        std::fs::write(&path, bytes).unwrap();
        let index = Index::open(&path).unwrap();
        assert!(index.find("HD_1", None, 5000).is_err());
        let known = index.known(Log::Events).unwrap();
        assert_eq!(known, IndexProgress::default(), "it is to be read again");
        let generation = begin(&index, Log::Events, "second");
        index.add_events(generation, &events, at(1999)).unwrap();
        assert!(!index.find("HD_1", None, 5000).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_index_is_made_anew_and_another_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.db");
        let mut damaged = b"SQLite format 3\0".to_vec();
        damaged.extend([0xA5; 4096]);
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(
            Index::open(&path).unwrap().known(Log::Attempts).unwrap(),
            IndexProgress::default()
        );
        assert!(folder.path().join("index.db.damaged").exists());
        let another = folder.path().join("operator.yml");
        std::fs::write(
            &another,
            "fluent-connect: {} # and long enough to be looked at, whatever it is",
        )
        .unwrap();
        assert!(Index::open(&another).is_err());
        assert!(
            std::fs::read_to_string(&another)
                .unwrap()
                .starts_with("fluent-connect")
        );
        let customers = folder.path().join("customers.db");
        for version in [0, FORMAT + 1] {
            let sql = Connection::open(&customers).unwrap();
            sql.execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS customers (name); PRAGMA user_version = {version};
                 CREATE TABLE IF NOT EXISTS logs (log TEXT PRIMARY KEY, life TEXT, last INTEGER)"
            ))
            .unwrap();
            drop(sql);
            let rights = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(&customers, rights).unwrap();
            let before = std::fs::read(&customers).unwrap();
            for _ in 0..2 {
                assert!(Index::open(&customers).is_err());
                assert_eq!(std::fs::read(&customers).unwrap(), before);
            }
            let rights = std::fs::metadata(&customers).unwrap().permissions();
            assert_eq!(rights.mode() & 0o777, 0o644);
        }
    }

    #[test]
    fn it_forgets_of_one_shard_what_that_shard_has_removed() {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(&folder.path().join("index.db")).unwrap();
        let generation = begin(&index, Log::Events, "a");
        let elsewhere = |sequence| Position::new(1, sequence).unwrap();
        let of = |event, position| IndexedEvent { position, ..event };
        let events = [
            event(1, "HD_1", None),
            event(5, "HD_1", None),
            of(event(2, "HD_1", None), elsewhere(2)),
            of(event(6, "HD_1", None), elsewhere(6)),
        ];
        index.add_events(generation, &events, elsewhere(6)).unwrap();
        index.trim(Log::Events, generation, elsewhere(6)).unwrap();
        let found = index.find("HD_1", None, 9).unwrap();
        let found: Vec<_> = found.into_iter().map(|(at, _)| at).collect();
        assert_eq!(found, [elsewhere(6), at(5), at(1)]);
    }

    #[test]
    fn the_file_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(&folder.path().join("data/index.db")).unwrap();
        for entry in std::fs::read_dir(folder.path().join("data"))
            .unwrap()
            .map(Result::unwrap)
        {
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", entry.path().display());
        }
        drop(index);
    }
}
