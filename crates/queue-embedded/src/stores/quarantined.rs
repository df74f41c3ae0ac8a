//! The quarantine of a queue file, and damaged events that are moved into it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use event_model::Event;
use futures::FutureExt;
use futures::future::BoxFuture;
use queue::{PAGE_BYTES, Quarantine, Quarantined, QueueError};
use rusqlite::{Connection, params};
use sqlite_file::quarantine::{contains_body, keep, list};
use sqlite_file::rows::{prefix, signed, unsigned};
use sqlite_file::{Job, Waiting, lock, reading};
use tokio::sync::oneshot;

use crate::file::schema::last_position;
use crate::shared::Shared;
use crate::stores::connections::{SqliteStores, writing};
use crate::writing::job::{QueueJobs, Store};
use crate::writing::publish::insert;
use crate::writing::retention::note_removed;

impl Quarantine for SqliteStores {
    fn store(&self, body: Quarantined) -> BoxFuture<'_, Result<(), QueueError>> {
        self.write(move |sql, _| keep(sql, &body).map_err(writing))
    }

    fn list(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Quarantined>, QueueError>> {
        self.read(move |sql| list(sql, after, limit, PAGE_BYTES).map_err(reading))
    }

    fn get(&self, id: u64) -> BoxFuture<'_, Result<Quarantined, QueueError>> {
        self.read(move |sql| {
            let found = list(sql, id.saturating_sub(1), 1, PAGE_BYTES)
                .map_err(reading)?
                .pop();
            found
                .filter(|found| found.id == id)
                .ok_or_else(|| not_found(id))
        })
    }

    fn count(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        self.read(|sql| {
            sql.query_row("SELECT count(*) FROM quarantine", [], |row| row.get(0))
                .map(unsigned)
                .map_err(reading)
        })
    }

    fn release(&self, id: u64, event: Event) -> BoxFuture<'_, Result<(), QueueError>> {
        self.write(move |sql, _| release(sql, id, &event))
    }

    fn discard(&self, id: u64) -> BoxFuture<'_, Result<(), QueueError>> {
        self.write(move |sql, _| discard(sql, id))
    }
}

fn not_found(id: u64) -> QueueError {
    QueueError::NotFound(format!("quarantined body {id}"))
}

fn release(sql: &Connection, id: u64, event: &Event) -> Result<(), QueueError> {
    let gone = sql
        .execute("DELETE FROM quarantine WHERE id = ?1", [signed(id)])
        .map_err(writing)?;
    if gone == 0 {
        return Err(not_found(id));
    }
    publish_once(sql, event).map(drop)
}

/// Publishes an event, unless it is known. Returns whether it was.
pub(crate) fn publish_once(sql: &Connection, event: &Event) -> Result<bool, QueueError> {
    if contains_event(sql, event).map_err(writing)? {
        return Ok(true);
    }
    let mut last = last_position(sql).map_err(writing)?;
    insert(sql, &mut last, event)
        .map_err(writing)
        .map(|_| false)
}

fn contains_event(sql: &Connection, event: &Event) -> rusqlite::Result<bool> {
    sql.query_row(
        "SELECT EXISTS (SELECT 1 FROM events WHERE prefix = ?1 AND id = ?2)",
        params![prefix(&event.id()), event.id().as_bytes()],
        |row| row.get(0),
    )
}

pub(crate) fn discard(sql: &Connection, id: u64) -> Result<(), QueueError> {
    let gone = sql
        .execute("DELETE FROM quarantine WHERE id = ?1", [signed(id)])
        .map_err(writing)?;
    if gone == 0 {
        Err(not_found(id))
    } else {
        Ok(())
    }
}

/// The serving process's quarantine: storing a body shares the fsync of the group.
#[derive(Debug)]
pub(crate) struct GroupedQuarantine {
    beside: SqliteStores,
    shared: Arc<Shared>,
    /// Largest number of bytes of bodies.
    most: u64,
}

impl GroupedQuarantine {
    /// `limit` is that of the file, in bytes.
    pub(crate) fn new(beside: SqliteStores, shared: Arc<Shared>, limit: u64) -> Self {
        Self {
            beside,
            shared,
            most: (limit / 10).clamp(LEAST_BYTES, MAX_BYTES),
        }
    }
}

impl Quarantine for GroupedQuarantine {
    fn store(&self, body: Quarantined) -> BoxFuture<'_, Result<(), QueueError>> {
        let (reply, answer) = oneshot::channel();
        let waiting = match self.shared.status().begin_waiting(body.body.len()) {
            Ok(waiting) => waiting,
            Err(error) => return futures::future::ready(Err(error)).boxed(),
        };
        let shared = Arc::clone(&self.shared);
        self.shared.submit(QuarantineJob {
            body,
            outcome: QuarantineResult::Before,
            shared,
            most: self.most,
            reply,
            _waiting: waiting,
        });
        async move { answer.await.unwrap_or(Err(QueueError::Closed)) }.boxed()
    }

    fn list(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Quarantined>, QueueError>> {
        Quarantine::list(&self.beside, after, limit)
    }

    fn get(&self, id: u64) -> BoxFuture<'_, Result<Quarantined, QueueError>> {
        Quarantine::get(&self.beside, id)
    }

    fn count(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        Quarantine::count(&self.beside)
    }

    fn release(&self, id: u64, event: Event) -> BoxFuture<'_, Result<(), QueueError>> {
        self.beside.release(id, event)
    }

    fn discard(&self, id: u64) -> BoxFuture<'_, Result<(), QueueError>> {
        Quarantine::discard(&self.beside, id)
    }
}

/// Largest number of bytes of bodies in quarantine, which are a tenth of the file at most.
/// Malformed bodies must not fill the queue: beyond this they are refused, while events are not.
const MAX_BYTES: u64 = 64 << 20;

/// What they may take of a small file: two bodies of the largest size fit.
const LEAST_BYTES: u64 = 4 << 20;

struct QuarantineJob {
    body: Quarantined,
    outcome: QuarantineResult,
    shared: Arc<Shared>,
    most: u64,
    reply: oneshot::Sender<Result<(), QueueError>>,
    _waiting: Waiting,
}

/// Result of storing a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum QuarantineResult {
    Before,
    /// Stored; the value is its size in bytes.
    New(u64),
    NoRoom,
}

impl Job<QueueJobs> for QuarantineJob {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        let bytes = self.body.body.len() as u64;
        self.outcome = if contains_body(store.sql, &self.body)? {
            QuarantineResult::Before
        } else if self.shared.quarantined.load(Ordering::Relaxed) + bytes > self.most {
            QuarantineResult::NoRoom
        } else {
            keep(store.sql, &self.body)?;
            // Counted at once, for the jobs that follow in the same group.
            self.shared.quarantined.fetch_add(bytes, Ordering::Relaxed);
            QuarantineResult::New(bytes)
        };
        Ok(())
    }

    fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }

    fn is_a_promise(&self) -> bool {
        true
    }

    fn undo(&mut self) {
        if let QuarantineResult::New(bytes) =
            std::mem::replace(&mut self.outcome, QuarantineResult::Before)
        {
            // The sum may have been calculated anew since.
            let less = |counted: u64| Some(counted.saturating_sub(bytes));
            let _ =
                self.shared
                    .quarantined
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }

    fn finish(self: Box<Self>, committed: Result<(), QueueError>) {
        let has_room = self.outcome != QuarantineResult::NoRoom;
        let answer = committed.and(if has_room {
            Ok(())
        } else {
            Err(QueueError::Full)
        });
        let _ = self.reply.send(answer);
    }
}

/// Tables with rows of a damaged event that go with it. The id goes too, so that the same event is
/// stored when it is sent again.
const OF_AN_EVENT: [&str; 6] = [
    // First, so that retention is not told of what the others free.
    "bodies",
    "deliveries",
    "attempts",
    "dead_letters",
    "refs",
    "events",
];

fn removal(table: &str) -> String {
    format!("DELETE FROM {table} WHERE position = ?1")
}

/// Moves an event whose bytes no longer match its digest into the quarantine.
pub(crate) struct QuarantineDamaged {
    pub(crate) position: u64,
    pub(crate) shared: Arc<Shared>,
}

impl Job<QueueJobs> for QuarantineDamaged {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        let position = [signed(self.position)];
        store.sql.execute(
            "INSERT OR IGNORE INTO quarantine (digest, body, algorithm, key, signature, received_at, reason)
             SELECT e.id, b.body, e.algorithm, e.key, e.signature, e.received_at, 'damaged in the queue file'
             FROM events e JOIN bodies b USING (position) WHERE e.position = ?1",
            position,
        )?;
        let mut is_there = false;
        for table in OF_AN_EVENT {
            is_there |= store.sql.execute(&removal(table), position)? > 0;
        }
        if is_there {
            note_removed(store.sql, position[0])?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>, committed: Result<(), QueueError>) {
        if committed.is_err() {
            // The event will be read again, and found damaged again.
            lock(&self.shared.routes)
                .iter()
                .for_each(|route| route.set_stale());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::schema::plan;

    /// Thousands of events may be damaged for a stricter version, while a million deliveries wait.
    #[test]
    fn a_damaged_event_goes_without_a_scan() {
        for table in OF_AN_EVENT {
            let plan = plan(&removal(table)).join("\n");
            assert!(
                plan.starts_with("SEARCH") && !plan.contains("SCAN"),
                "{table}: {plan}"
            );
        }
    }
}
