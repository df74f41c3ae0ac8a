//! Connections to a queue file beside the thread that serves it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_model::{Clock, EventId};
use futures::FutureExt;
use futures::future::BoxFuture;
use queue::{Position, Presence, QueueError};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use sqlite_file::rows::{nanos, packed};
use sqlite_file::{
    Failure, FileLocation, FileStatus, OpenError, READ_WITHIN, connect_to_read, end_after, lock,
    open_beside, reading, small_cache,
};

use crate::file::schema::QUEUE;
use crate::writing::queue_time::QueueTime;

/// The stores of a queue file, opened beside the process that serves it.
///
/// Reading sees what is committed. A redrive is a transaction of its own, which the serving
/// process notices within half a second.
#[derive(Clone, Debug)]
pub struct SqliteStores {
    pub(crate) path: Arc<Path>,
    /// A connection of its own, so that no writer waits for a reader.
    to_read: Arc<Mutex<Connection>>,
    to_write: Arc<Mutex<Connection>>,
    now: Option<i64>,
    served: Option<Served>,
}

/// What the process that serves the file knows of it.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) status: Arc<FileStatus>,
    pub(crate) place: Arc<FileLocation>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) time: QueueTime,
}

/// The time of a change, in Unix nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    /// By the clock: for people, and for what processes tell each other.
    pub(crate) now: i64,
    /// By [`QueueTime`]: for what is removed at an age, since the clock may be years ahead for a
    /// moment.
    pub(crate) age: i64,
}

impl SqliteStores {
    /// Opens an existing file. `now` is the time that changes are stamped with, in Unix
    /// nanoseconds; with `None`, SQLite's clock is used.
    ///
    /// # Errors
    /// If there is no such file, or it is of another kind or format.
    pub fn open(path: &Path, now: Option<i64>) -> Result<Self, OpenError> {
        let wrap = |source| OpenError::Sqlite {
            path: path.to_owned(),
            source,
        };
        let sql = open_beside(path, &QUEUE)?;
        small_cache(&sql).map_err(wrap)?;
        let to_read = Arc::new(Mutex::new(connect_to_read(path).map_err(wrap)?));
        Ok(Self {
            path: path.into(),
            to_read,
            to_write: Arc::new(Mutex::new(sql)),
            now,
            served: None,
        })
    }

    /// Ties these stores to the writer of the same process: when it must not write, they must
    /// not.
    pub(crate) fn serving(self, served: Served) -> Self {
        Self {
            served: Some(served),
            ..self
        }
    }

    /// A function that stamps with the time of now.
    pub(crate) fn stamps(
        &self,
    ) -> impl Fn(&Connection) -> rusqlite::Result<Stamp> + Send + use<> + 'static {
        let given = self.now;
        let served = self.served.clone();
        move |sql| {
            if let Some(now) = given {
                return Ok(Stamp { now, age: now });
            }
            if let Some(served) = &served {
                return Ok(Stamp {
                    now: nanos(served.clock.now()),
                    age: served.time.now(),
                });
            }
            let now = sqlite_now(sql)?;
            let age = QueueTime::recorded(sql, now)?;
            Ok(Stamp { now, age })
        }
    }

    /// Runs `read` on a thread that may block.
    pub(crate) fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, QueueError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, QueueError>> {
        let sql = Arc::clone(&self.to_read);
        blocking(move || read_within(&mut lock(&sql), READ_WITHIN, read))
    }

    /// Runs `read` on a connection of its own, so that a long read keeps no other waiting.
    pub(crate) fn read_apart<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, QueueError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, QueueError>> {
        let path = Arc::clone(&self.path);
        blocking(move || read(&connect_to_read(&path).map_err(reading)?))
    }

    /// Whether the event `id` is at `position`.
    pub(crate) fn holds(
        &self,
        position: Position,
        id: EventId,
    ) -> BoxFuture<'static, Result<Presence, QueueError>> {
        self.read(move |sql| {
            let found = sql
                .query_row(
                    "SELECT id FROM events WHERE position = ?1",
                    [packed(position)],
                    |row| row.get(0),
                )
                .optional()
                .map_err(reading)?;
            let first = "SELECT ifnull(min(position), 0) FROM events";
            let found: Option<Vec<u8>> = found;
            match found {
                Some(found) if found == id.as_bytes() => Ok(Presence::Present),
                Some(_) => Ok(Presence::Missing),
                None => {
                    let first: i64 = sql
                        .query_row(first, [], |row| row.get(0))
                        .map_err(reading)?;
                    Ok(if packed(position) < first {
                        Presence::Removed
                    } else {
                        Presence::Missing
                    })
                }
            }
        })
    }

    /// Runs `write` in one transaction: all of it or nothing.
    pub(crate) fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection, Stamp) -> Result<T, QueueError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, QueueError>> {
        let sql = Arc::clone(&self.to_write);
        let stamps = self.stamps();
        let served = self.served.clone();
        let can_write = move || match &served {
            Some(served) => ensure_writable(&served.status, &served.place),
            None => Ok(()),
        };
        blocking(move || {
            can_write()?;
            let mut sql = lock(&sql);
            let transaction = sql
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(writing)?;
            let stamp = stamps(&transaction).map_err(writing)?;
            let result = write(&transaction, stamp)?;
            transaction.commit().map_err(writing)?;
            // A commit to a file that nobody will find again does not count.
            can_write()?;
            Ok(result)
        })
    }
}

/// Fails if the file can't be trusted, or is no longer in its place, where nobody would find what
/// was written.
fn ensure_writable(status: &FileStatus, place: &FileLocation) -> Result<(), QueueError> {
    match status.failure() {
        Some(why) => Err(Failure::Broken(why).into()),
        None if !place.is_there() => Err(Failure::Gone.into()),
        None => Ok(()),
    }
}

/// Whether a table exists, asked as a query: `table_exists` looks at what this connection
/// remembers of the file, and another process may have created the table since.
pub(crate) fn contains_table(sql: &Connection, table: &str) -> rusqlite::Result<bool> {
    sql.prepare_cached("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = ?1)")?
        .query_row([table], |row| row.get(0))
}

pub(crate) fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

pub(crate) fn sqlite_now(sql: &Connection) -> rusqlite::Result<i64> {
    sql.query_row(
        "SELECT CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER) * 1000000",
        [],
        |row| row.get(0),
    )
}

fn read_within<T>(
    sql: &mut Connection,
    time: Duration,
    read: impl FnOnce(&Connection) -> Result<T, QueueError>,
) -> Result<T, QueueError> {
    end_after(sql, time).map_err(reading)?;
    read(sql)
}

fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QueueError> + Send + 'static,
) -> BoxFuture<'static, Result<T, QueueError>> {
    let task = tokio::task::spawn_blocking(work);
    async move {
        task.await
            .map_err(|error| QueueError::unavailable("reading the queue file", error))?
    }
    .boxed()
}

/// Translates the error of a write. A failed write of this connection says nothing about the
/// serving connection.
pub(crate) fn writing(error: rusqlite::Error) -> QueueError {
    match Failure::from(&error) {
        Failure::Full => QueueError::Full,
        _ => QueueError::unavailable("writing to the queue file", error),
    }
}

#[cfg(test)]
mod tests {
    use sqlite_file::rows::signed;

    use super::*;

    #[test]
    fn a_read_that_does_not_end_is_ended_and_the_next_is_not() {
        let mut sql = Connection::open_in_memory().unwrap();
        let count = |up_to: u64| {
            move |sql: &Connection| {
                let text = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) SELECT count(*) FROM n";
                sql.query_row(text, [signed(up_to)], |row| row.get::<_, i64>(0))
                    .map_err(reading)
            }
        };
        let ended = read_within(&mut sql, Duration::from_millis(50), count(u64::MAX)).unwrap_err();
        let why = std::error::Error::source(&ended).unwrap().to_string();
        assert!(why.contains("took too long"), "{why}");
        assert_eq!(
            read_within(&mut sql, READ_WITHIN, count(100_000)).unwrap(),
            100_000
        );
    }
}
