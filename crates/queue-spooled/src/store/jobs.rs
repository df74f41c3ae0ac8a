//! Jobs that write into a spool's file.

use std::sync::Arc;

use event_model::Event;
use queue::{Quarantined, QueueError};
use rusqlite::Connection;
use sqlite_file::{Job, Jobs, Waiting, quarantine};
use tokio::sync::oneshot;

use crate::store::fill_level::Level;
use crate::store::rows;
use crate::store::values::{AcknowledgedRow, OnStored, StoredRow};

/// Marker type for the jobs of a spool.
#[derive(Debug)]
pub(crate) enum SpoolJobs {}

impl Jobs for SpoolJobs {
    type Store<'w> = Store<'w>;
}

/// Store of a group of jobs: the open transaction and the time.
pub(crate) struct Store<'w> {
    pub(crate) sql: &'w Connection,
    /// The time of the group, in Unix nanoseconds.
    pub(crate) now: i64,
    /// True if the file has reached its limit, so that new events are refused.
    pub(crate) is_full: bool,
}

type Reply<T> = oneshot::Sender<Result<T, QueueError>>;

/// Stores an event, and hands it on.
pub(crate) struct StoreEvent<W> {
    /// The event and its waiter, until they are handed on.
    pub(crate) given: Option<(Event, W)>,
    /// The stored row; `None` if there was no room.
    pub(crate) kept: Option<StoredRow>,
    pub(crate) on_kept: Arc<OnStored<W>>,
    pub(crate) level: Arc<Level>,
    pub(crate) reply: Reply<StoredRow>,
    pub(crate) _waiting: Waiting,
}

impl<W: Send> Job<SpoolJobs> for StoreEvent<W> {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        let Some((event, _)) = &self.given else {
            return Ok(());
        };
        self.kept = match store.is_full && !rows::contains_event(store.sql, event)? {
            true => None,
            false => {
                let (row, is_duplicate) = rows::keep(store.sql, event)?;
                Some(StoredRow { row, is_duplicate })
            }
        };
        Ok(())
    }

    fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }

    fn is_a_promise(&self) -> bool {
        true
    }

    /// Hands events on in the order of their rows, which begins here. If the file is gone, the
    /// event is forwarded as long as this process runs, although its sender is told that it is
    /// not stored.
    fn committed(&mut self) {
        let Some(kept) = self.kept.as_ref().filter(|kept| !kept.is_duplicate) else {
            return;
        };
        if let Some((event, waiter)) = self.given.take() {
            self.level.add(rows::weight(&event));
            (self.on_kept)(kept.row, event, waiter);
        }
    }

    fn finish(self: Box<Self>, committed: Result<(), QueueError>) {
        if committed.is_ok() && self.kept.is_none() {
            self.level.note_full();
        }
        let _ = self
            .reply
            .send(committed.and(self.kept.ok_or(QueueError::Full)));
    }
}

/// Stores a genuine body that is not an event.
pub(crate) struct StoreBody {
    pub(crate) body: Quarantined,
    pub(crate) has_room: bool,
    pub(crate) level: Arc<Level>,
    pub(crate) reply: Reply<()>,
    pub(crate) _waiting: Waiting,
}

impl Job<SpoolJobs> for StoreBody {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        self.has_room = !store.is_full || quarantine::contains_body(store.sql, &self.body)?;
        if self.has_room {
            quarantine::keep(store.sql, &self.body)
        } else {
            Ok(())
        }
    }

    fn is_given_up(&self) -> bool {
        self.reply.is_closed()
    }

    fn is_a_promise(&self) -> bool {
        true
    }

    fn finish(self: Box<Self>, committed: Result<(), QueueError>) {
        if committed.is_ok() && !self.has_room {
            self.level.note_full();
        }
        let _ = self.reply.send(committed.and(if self.has_room {
            Ok(())
        } else {
            Err(QueueError::Full)
        }));
    }
}

/// Records what the queue acknowledged.
pub(crate) struct Acknowledge(pub(crate) Vec<AcknowledgedRow>);

impl Job<SpoolJobs> for Acknowledge {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        rows::acknowledge(store.sql, &self.0, store.now)
    }

    /// If the change is lost, the rows are sent again.
    fn can_wait(&self) -> bool {
        true
    }

    fn finish(self: Box<Self>, _: Result<(), QueueError>) {}
}

/// Changes the state of rows.
pub(crate) struct Change<F> {
    pub(crate) change: F,
    pub(crate) reply: Reply<()>,
}

impl<F: FnMut(&Connection) -> rusqlite::Result<()> + Send> Job<SpoolJobs> for Change<F> {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        (self.change)(store.sql)
    }

    fn finish(self: Box<Self>, committed: Result<(), QueueError>) {
        let _ = self.reply.send(committed);
    }
}
