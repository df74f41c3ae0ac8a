//! The job that stores an event.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use event_model::Event;
use queue::{Position, QueueError, Receipt};
use rusqlite::{Connection, OptionalExtension, params};
use sqlite_file::rows::{nanos, prefix, signature_bytes, signed, unsigned};
use sqlite_file::{Job, Waiting, lock};
use tokio::sync::oneshot;

use crate::file::refs;
use crate::shared::Shared;
use crate::writing::job::{QueueJobs, Store};

/// Receiver of the result of a publish.
type Answer = oneshot::Receiver<Result<Receipt, QueueError>>;

/// Stores one event, unless its id is known.
pub(crate) struct Publish {
    event: Arc<Event>,
    shared: Arc<Shared>,
    answer: Result<(u64, bool), QueueError>,
    reply: oneshot::Sender<Result<Receipt, QueueError>>,
    _waiting: Waiting,
}

impl Publish {
    /// # Errors
    /// If too much is waiting to be written already.
    pub(crate) fn new(event: Event, shared: Arc<Shared>) -> Result<(Self, Answer), QueueError> {
        let (reply, answer) = oneshot::channel();
        let waiting = shared.status().begin_waiting(event.body().len())?;
        let event = Arc::new(event);
        let job = Self {
            event,
            shared,
            answer: Err(QueueError::Closed),
            reply,
            _waiting: waiting,
        };
        Ok((job, answer))
    }
}

impl Job<QueueJobs> for Publish {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        self.answer = match known(store, &self.event)? {
            Some(position) => Ok((position, true)),
            None if self.shared.full.load(Ordering::Relaxed) => Err(QueueError::Full),
            None => Ok((insert(store.sql, store.last, &self.event)?, false)),
        };
        Ok(())
    }

    fn is_a_promise(&self) -> bool {
        true
    }

    fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }

    fn finish(self: Box<Self>, committed: Result<(), QueueError>) {
        let Self {
            event,
            shared,
            answer,
            reply,
            _waiting,
        } = *self;
        let receipt = committed.and(answer).and_then(|(row, duplicate)| {
            if !duplicate {
                lock(&shared.recent).push(row, event);
            }
            let position = Position::new(0, row)?;
            Ok(Receipt {
                duplicate,
                epoch: shared.epoch.clone(),
                position,
            })
        });
        let _ = reply.send(receipt);
    }
}

fn known(store: &Store<'_>, event: &Event) -> rusqlite::Result<Option<u64>> {
    store
        .sql
        .prepare_cached("SELECT position FROM events WHERE prefix = ?1 AND id = ?2")?
        .query_row(params![prefix(&event.id()), event.id().as_bytes()], |row| {
            row.get(0)
        })
        .optional()
        .map(|position| position.map(unsigned))
}

/// Writes the rows of an event, also for one that is released from quarantine.
pub(crate) fn insert(sql: &Connection, last: &mut u64, event: &Event) -> rusqlite::Result<u64> {
    *last += 1;
    let position = *last;
    let stored = event.stored();
    sql.prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?
        .execute(params![
            signed(position),
            prefix(&event.id()),
            event.id().as_bytes(),
            stored.key.name().to_string(),
            stored.proof.as_str(),
            signature_bytes(&stored.signature),
            nanos(stored.received_at),
            stored.trace_text(),
            event.fields().entity_ref,
            event.fields().root_entity_ref,
        ])?;
    refs::insert(sql, signed(position), event)?;
    sql.prepare_cached("INSERT INTO bodies VALUES (?1, ?2)")?
        .execute(params![signed(position), &stored.body[..]])?;
    Ok(position)
}
