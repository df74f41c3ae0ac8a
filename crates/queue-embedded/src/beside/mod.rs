//! The stores of a queue file: what is read, and redriven, beside whoever
//! serves it.

pub(crate) mod attempts;
pub(crate) mod history;
pub(crate) mod letters;
mod marks;
pub(crate) mod quarantined;
pub(crate) mod refused;
pub(crate) mod routes;
pub(crate) mod salvage;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_model::{Event, EventId};
use futures::FutureExt;
use futures::future::BoxFuture;
use queue::{
    DeadLetters, HasMarks, History, Marks, Pause, Position, Presence, Quarantine, QueueError, RefusedHold,
    Replayed, RouteState, StoreUsage, Stores, StoresHealth,
};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::file::failure::{Failure, reading};
use crate::file::rows::{packed, prefix, signed, unsigned};
use crate::file::schema::{
    FORMAT, READ_WITHIN, connect, connect_to_read, end_after, meta, set_meta, small_cache,
};
use crate::shared::lock;
use crate::writing::housekeeping::beyond_a_checkpoint;
use crate::writing::retention::settled_up_to;

/// The stores of a queue file, opened beside whoever serves it.
///
/// Reading sees what is committed; a redrive is a transaction of its own,
/// which the serving process notices within half a second.
#[derive(Clone, Debug)]
pub struct Beside {
    path: Arc<Path>,
    /// Apart, so that nobody who changes something waits for who looks.
    to_read: Arc<Mutex<Connection>>,
    to_write: Arc<Mutex<Connection>>,
    now: Option<i64>,
}

impl Beside {
    /// Opens an existing file. `now` is the time that changes are stamped
    /// with, Unix nanoseconds; `None` leaves it to SQLite.
    pub fn open(path: &Path, now: Option<i64>) -> rusqlite::Result<Self> {
        let sql = connect(path, false)?;
        small_cache(&sql)?;
        match meta::<i64>(&sql, "format")? {
            Some(FORMAT) => {}
            // One that serves brings it up to date when it starts.
            Some(format) if format < FORMAT => {
                return Err(rusqlite::Error::InvalidParameterName(format!(
                    "it has format {format}, and this program works with {FORMAT}: start the service anew with this version first"
                )));
            }
            _ => return Err(rusqlite::Error::InvalidQuery),
        }
        let to_read = Arc::new(Mutex::new(connect_to_read(path)?));
        Ok(Self { path: path.into(), to_read, to_write: Arc::new(Mutex::new(sql)), now })
    }

    /// Runs `read` on a thread that may block.
    pub(crate) fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, QueueError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, QueueError>> {
        let sql = Arc::clone(&self.to_read);
        blocking(move || read_within(&mut lock(&sql), READ_WITHIN, read))
    }

    /// Runs `read` on a connection of its own: what takes long must keep nobody waiting.
    pub(crate) fn read_apart<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, QueueError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, QueueError>> {
        let path = Arc::clone(&self.path);
        blocking(move || read(&connect_to_read(&path).map_err(reading)?))
    }

    /// Whether `position` holds `id`.
    pub(crate) fn holds(
        &self,
        position: Position,
        id: EventId,
    ) -> BoxFuture<'static, Result<Presence, QueueError>> {
        self.read(move |sql| {
            let found = sql
                .query_row("SELECT id FROM events WHERE position = ?1", [packed(position)], |row| row.get(0))
                .optional()
                .map_err(reading)?;
            let first = "SELECT ifnull(min(position), 0) FROM events";
            let found: Option<Vec<u8>> = found;
            match found {
                Some(found) if found == id.as_bytes() => Ok(Presence::Present),
                Some(_) => Ok(Presence::Missing),
                None => {
                    let first: i64 = sql.query_row(first, [], |row| row.get(0)).map_err(reading)?;
                    Ok(if packed(position) < first { Presence::Removed } else { Presence::Missing })
                }
            }
        })
    }

    /// Runs `write` in one transaction: all of it or nothing.
    pub(crate) fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Connection, i64) -> Result<T, QueueError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, QueueError>> {
        let sql = Arc::clone(&self.to_write);
        let now = self.now;
        blocking(move || {
            let mut sql = lock(&sql);
            let transaction =
                sql.transaction_with_behavior(TransactionBehavior::Immediate).map_err(writing)?;
            let now = match now {
                Some(now) => now,
                None => sqlite_now(&transaction).map_err(writing)?,
            };
            let result = write(&transaction, now)?;
            transaction.commit().map_err(writing)?;
            Ok(result)
        })
    }
}

pub(crate) fn sqlite_now(sql: &Connection) -> rusqlite::Result<i64> {
    sql.query_row("SELECT CAST(unixepoch('now', 'subsec') * 1000 AS INTEGER) * 1000000", [], |row| row.get(0))
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
    async move { task.await.map_err(|error| QueueError::unavailable("reading the queue file", error))? }
        .boxed()
}

/// A failed write of this connection says nothing about the serving one's.
pub(crate) fn writing(error: rusqlite::Error) -> QueueError {
    match Failure::from(&error) {
        Failure::Full => QueueError::Full,
        _ => QueueError::unavailable("writing to the queue file", error),
    }
}

/// About so many bytes of bodies are kept that some route has not settled: their share of
/// all, by positions. A sum would read them all.
fn unsettled_bytes(sql: &Connection) -> rusqlite::Result<u64> {
    let of_pages = |pragma: &str| sql.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0));
    let used = (of_pages("page_count")? - of_pages("freelist_count")?) * of_pages("page_size")?;
    let (first, last): (Option<i64>, Option<i64>) = sql.query_row(
        "SELECT (SELECT min(position) FROM bodies), (SELECT max(position) FROM bodies)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let Some((first, last)) = first.zip(last) else { return Ok(0) };
    let settled = signed(settled_up_to(sql)?);
    let (all, open) = (unsigned(last - first + 1), unsigned((last - settled.max(first - 1)).max(0)));
    let share = u128::from(unsigned(used)) * u128::from(open) / u128::from(all.max(1));
    Ok(u64::try_from(share).unwrap_or(u64::MAX))
}

impl HasMarks for Beside {
    fn marks(&self) -> &dyn Marks {
        self
    }
}

impl Stores for Beside {
    fn dead_letters(&self) -> &dyn DeadLetters {
        self
    }

    fn quarantine(&self) -> &dyn Quarantine {
        self
    }

    fn history(&self) -> &dyn History {
        self
    }

    fn health(&self) -> BoxFuture<'_, Result<StoresHealth, QueueError>> {
        let path = Arc::clone(&self.path);
        self.read_apart(move |sql| {
            let usage = vec![StoreUsage {
                name: "the queue".to_owned(),
                used: unsettled_bytes(sql).map_err(reading)? + beyond_a_checkpoint(&path),
                limit: None,
                has_settled: false,
            }];
            Ok(StoresHealth { servers: Vec::new(), usage })
        })
    }

    fn admit(&self, event: Event) -> BoxFuture<'_, Result<bool, QueueError>> {
        self.write(move |sql, _| quarantined::publish_once(sql, &event))
    }

    fn routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>> {
        self.read_apart(|sql| routes::states(sql).map_err(reading))
    }

    fn forget<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        let route = route.to_owned();
        self.write(move |sql, _| forget(sql, &route))
    }

    fn set_paused<'a>(
        &'a self,
        route: &'a str,
        pause: Option<&'a Pause>,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        let (route, pause) = (route.to_owned(), pause.cloned());
        self.write(move |sql, _| set_paused(sql, &route, pause.as_ref()))
    }

    fn retry_now<'a>(&'a self, route: &'a str, event: EventId) -> BoxFuture<'a, Result<u64, QueueError>> {
        let route = route.to_owned();
        self.write(move |sql, now| {
            let id = id_of(sql, &route)?;
            let made_due = sql.execute(
                "UPDATE deliveries SET at = ?3 WHERE route = ?1 AND in_flight = 0 AND at > ?3
                 AND position IN (SELECT position FROM events WHERE prefix = ?4 AND id = ?2)",
                params![id, event.as_bytes(), now, prefix(&event)],
            );
            made_due.map(|count| count as u64).map_err(writing)
        })
    }

    fn close_breakers<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        let route = route.to_owned();
        self.write(move |sql, now| {
            id_of(sql, &route)?;
            set_meta(sql, &format!("ask again: {route}"), now).map_err(writing)
        })
    }

    fn refused(&self) -> &dyn RefusedHold {
        self
    }

    fn replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<Replayed>, QueueError>> {
        let (route, positions) =
            (route.to_owned(), events.iter().map(|(position, _)| *position).collect::<Vec<_>>());
        self.write(move |sql, now| {
            let replayed = attempts::replay(sql, &route, &positions, again, now).map_err(writing)?;
            replayed.ok_or_else(|| QueueError::NotFound(format!("route {route}")))
        })
    }
}

fn set_paused(sql: &Connection, route: &str, pause: Option<&Pause>) -> Result<(), QueueError> {
    id_of(sql, route)?;
    let key = format!("paused: {route}");
    let changed = match pause {
        Some(pause) => set_meta(sql, &key, serde_json::to_string(pause).unwrap_or_default()),
        None => sql.execute("DELETE FROM meta WHERE key = ?1", [&key]).map(drop),
    };
    changed.map_err(writing)
}

fn id_of(sql: &Connection, route: &str) -> Result<i64, QueueError> {
    let id: Option<i64> = sql
        .query_row("SELECT id FROM routes WHERE name = ?1", [route], |row| row.get(0))
        .optional()
        .map_err(writing)?;
    id.ok_or_else(|| QueueError::NotFound(format!("route {route}")))
}

/// What it had to deliver is removed in chunks, by who serves the file.
fn forget(sql: &Connection, route: &str) -> Result<(), QueueError> {
    let id = id_of(sql, route)?;
    sql.execute(
        "DELETE FROM meta WHERE key IN ('filter of ' || ?1, 'paused: ' || ?1, 'ask again: ' || ?1)",
        [route],
    )
    .map_err(writing)?;
    sql.execute("DELETE FROM routes WHERE id = ?1", [id]).map_err(writing).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_does_not_end_is_ended_and_the_next_is_not() {
        let mut sql = Connection::open_in_memory().unwrap();
        let count = |up_to: u64| {
            move |sql: &Connection| {
                let text = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) SELECT count(*) FROM n";
                sql.query_row(text, [signed(up_to)], |row| row.get::<_, i64>(0)).map_err(reading)
            }
        };
        let ended = read_within(&mut sql, Duration::from_millis(50), count(u64::MAX)).unwrap_err();
        let why = std::error::Error::source(&ended).unwrap().to_string();
        assert!(why.contains("took too long"), "{why}");
        assert_eq!(read_within(&mut sql, READ_WITHIN, count(100_000)).unwrap(), 100_000);
    }
}
