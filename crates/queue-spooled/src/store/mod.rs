//! The store of a spool: events that are not yet safe in a queue elsewhere.
//!
//! A row is *unsent* until the queue has acknowledged it, and *acknowledged* until it is
//! confirmed there; then it is removed. A row that can't be sent at all is *unsendable*
//! (`damaged_file`), and reported. One thread writes and reads; it hands on what it has stored in
//! the order of the rows.

mod file_kind;
mod fill_level;
mod jobs;
mod lookup;
mod owner;
mod rows;
mod spool_time;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use event_model::{Clock, Event, Timestamp};
use queue::{Impediment, Position, Quarantined, QueueError, Receipt};
use rusqlite::Connection;
use sqlite_file::{
    Failure, FileLocation, FileStatus, HeldFile, Inbox, Messages, OpenError, OpenedFile, Writer,
    inbox, lock, meta, quarantine, used_bytes,
};
use tokio::sync::oneshot;

use crate::store::file_kind::SPOOL;
use crate::store::fill_level::Level;
use crate::store::jobs::{Acknowledge, Change, SpoolJobs, StoreBody, StoreEvent};
use crate::store::owner::SpoolOwner;
use crate::store::spool_time::SpoolTime;
use crate::store::values::unreadable;

pub(crate) use crate::store::lookup::{DamagedSpool, spool_backlog, spool_sent_up_to};
pub use crate::store::lookup::{backup, spool_state};
pub use crate::store::values::{AcknowledgedRow, OnStored, SpoolState, StoredRow, UnconfirmedRow};

/// A spool's file, served by this process. `W` is handed on with an event, for whoever is
/// notified that it was stored.
pub struct Spool<W: Send + 'static> {
    inbox: Inbox<SpoolJobs>,
    level: Arc<Level>,
    on_kept: Arc<OnStored<W>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    id: String,
    time: Arc<SpoolTime>,
    set_aside: Option<PathBuf>,
    held: HeldFile,
}

/// Sender of the queue's receipt to whoever waits for it.
pub(crate) type Waiter = oneshot::Sender<Receipt>;

/// The spool's file, as the forwarder uses it.
pub(crate) type File = Spool<Option<Waiter>>;

impl<W: Send> fmt::Debug for Spool<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool")
            .field("status", self.inbox.status())
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// Log messages about a spool's file.
const MESSAGES: Messages = Messages {
    full: "the spool is full, for its disk is: events go to the queue directly, or are refused",
    gone: "the spool's file was removed, renamed or replaced while it was served: events go to the queue directly; what it holds is forwarded while this process runs",
    refused: "the spool's file can't be written to now",
    busy: "another process held the spool's file for too long",
    broken: "the spool's file can't be trusted any more: events go to the queue directly; restart to begin a new one",
    panicked: "the spool's thread panicked: events go to the queue directly; restart to go on with its file",
    log_removed: "the log beside the spool's file (-wal) was removed while it was served: what it held was written to the file, and events go to the queue directly until this process is started anew",
    again: "the spool can be written to again",
    long_log: "the log of the spool's file grows, since somebody reads the file for long: another program that has it open, or a backup",
};

impl<W: Send + 'static> Spool<W> {
    /// Opens the file, or creates it. At most `limit` bytes are stored.
    ///
    /// A damaged file is quarantined whole: see [`Spool::damaged_file`].
    ///
    /// # Errors
    /// If the file can't be opened, or is served already.
    pub fn open(
        path: &Path,
        limit: u64,
        clock: Arc<dyn Clock>,
        on_kept: OnStored<W>,
    ) -> Result<Self, OpenError> {
        let OpenedFile {
            sql,
            path,
            held,
            set_aside,
        } = sqlite_file::open(path, &SPOOL, &*clock)?;
        let wrap = |source| OpenError::Sqlite {
            path: path.clone(),
            source,
        };
        let time = SpoolTime::go_on(&sql, clock).map_err(wrap)?;
        let time = Arc::new(time);
        // Its size is not summed body by body: that would read the whole file before it can be
        // served.
        let level = Arc::new(Level::new(used_bytes(&sql).map_err(wrap)?, limit));
        let id = meta(&sql, "epoch").map_err(wrap)?.unwrap_or_default();
        let status = Arc::new(FileStatus::new(&path, &MESSAGES));
        let owner = SpoolOwner::new(Arc::clone(&level), Arc::clone(&status), Arc::clone(&time));
        let (inbox, jobs) = inbox(status);
        let thread = Writer::start("spool", sql, Arc::clone(held.location()), jobs, owner);
        let thread = thread.map_err(|source| OpenError::Io {
            action: "starting the thread of",
            path,
            source,
        })?;
        let thread = Mutex::new(Some(thread));
        Ok(Self {
            inbox,
            level,
            on_kept: Arc::new(on_kept),
            thread,
            id,
            time,
            set_aside,
            held,
        })
    }

    /// Where the file must be found: what is read by its path may be of another that took its
    /// place.
    pub(crate) fn location(&self) -> Arc<FileLocation> {
        Arc::clone(self.held.location())
    }

    /// The id of the file for its whole life, wherever it is moved.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The time by which it is measured how long an event was stored here.
    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.time) as _
    }

    /// The path of the earlier file, if it could not be trusted and was renamed.
    pub fn damaged_file(&self) -> Option<&PathBuf> {
        self.set_aside.as_ref()
    }

    /// Whether an event can be stored now.
    pub fn has_room(&self) -> bool {
        self.impediment().is_none()
    }

    /// Why no event can be stored now, if that is so.
    pub fn impediment(&self) -> Option<Impediment> {
        let full = || Impediment::from("the spool is full (`spool.bytes`)");
        let is_full = self.level.is_full();
        is_full
            .then(full)
            .or_else(|| self.inbox.status().impediment("the spool's file"))
    }

    /// Bytes of everything stored, as far as they are counted.
    pub fn bytes(&self) -> u64 {
        self.level.bytes()
    }

    /// The reason why nothing can be stored any more, if that is so.
    pub fn failure(&self) -> Option<String> {
        self.inbox.status().failure()
    }

    /// Stores `event`. When this returns `Ok`, a crash does not lose it. A new event is handed on
    /// with `waiter`.
    pub fn keep(
        &self,
        event: Event,
        waiter: W,
    ) -> impl Future<Output = Result<StoredRow, QueueError>> + use<W> {
        let (reply, answer) = oneshot::channel();
        match self.inbox.status().begin_waiting(event.body().len()) {
            Ok(waiting) => self.inbox.submit(StoreEvent {
                given: Some((event, waiter)),
                kept: None,
                on_kept: Arc::clone(&self.on_kept),
                level: Arc::clone(&self.level),
                reply,
                _waiting: waiting,
            }),
            Err(error) => drop(reply.send(Err(error))),
        }
        answered(answer)
    }

    /// Stores a genuine body that is not an event.
    pub async fn keep_body(&self, body: Quarantined) -> Result<(), QueueError> {
        let waiting = self.inbox.status().begin_waiting(body.body.len())?;
        let (reply, answer) = oneshot::channel();
        let level = Arc::clone(&self.level);
        self.inbox.submit(StoreBody {
            body,
            has_room: true,
            level,
            reply,
            _waiting: waiting,
        });
        answered(answer).await
    }

    /// Records acknowledgements of the queue, with the next write: after a crash before that, the
    /// rows are sent again.
    pub fn acknowledged(&self, rows: Vec<AcknowledgedRow>) {
        self.inbox.submit(Acknowledge(rows));
    }

    /// Removes rows that are safe elsewhere.
    pub async fn remove(&self, rows: Vec<i64>) -> Result<(), QueueError> {
        self.change(move |sql| rows::remove(sql, &rows)).await
    }

    /// Marks a row as unsendable, which the queue refuses for good.
    pub async fn mark_unsendable(&self, row: i64) -> Result<(), QueueError> {
        self.change(move |sql| rows::mark_unsendable(sql, row))
            .await
    }

    /// Makes unsendable rows unsent again, before everything that is asked for after this call,
    /// whether or not its result is awaited.
    pub fn retry_unsendable(&self) -> impl Future<Output = Result<(), QueueError>> + use<W> {
        self.change(rows::retry_unsendable)
    }

    /// Removes a body that is safe elsewhere.
    pub async fn remove_body(&self, id: u64) -> Result<(), QueueError> {
        self.change(move |sql| rows::remove_body(sql, id)).await
    }

    /// Unsent rows of `lane` of `lanes` after `row`, in order. A row that can't be read any more
    /// is marked as unsendable, and reported.
    pub async fn unsent(
        &self,
        lane: u8,
        lanes: u8,
        mut after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, Event)>, QueueError> {
        loop {
            let readable = self
                .look(move |sql| rows::unsent(sql, lane, lanes, after, limit))
                .await?;
            for row in &readable.damaged {
                // If the mark can't be written, the row is found damaged again.
                if let Err(error) = self.mark_unsendable(*row).await {
                    tracing::error!(row, %error, "a damaged event can't be set aside");
                }
            }
            // Damaged rows alone do not mean that the end is reached.
            match readable.damaged.last() {
                Some(last) if readable.events.is_empty() => after = *last,
                _ => return Ok(readable.events),
            }
        }
    }

    /// Rows acknowledged up to `before`, the oldest first, beginning after the key `after`.
    pub async fn unconfirmed(
        &self,
        before: Timestamp,
        after: (i64, i64),
        limit: usize,
    ) -> Result<Vec<UnconfirmedRow>, QueueError> {
        self.look(move |sql| rows::unconfirmed(sql, before, after, limit))
            .await
    }

    /// The highest acknowledged position of an epoch, and whether there are rows of another
    /// epoch.
    pub async fn acknowledged_in(&self, epoch: String) -> Result<(Position, bool), QueueError> {
        self.look(move |sql| rows::acknowledged_in(sql, &epoch))
            .await
    }

    /// The event of a row; `None` if there is none, or it is damaged.
    pub async fn event(&self, row: i64) -> Result<Option<Event>, QueueError> {
        self.look(move |sql| Ok(rows::one(sql, row)?.and_then(Result::ok)))
            .await
    }

    /// Bodies that are not events and come after the body `after`, in order, as many as may be in
    /// memory at once.
    pub async fn bodies(&self, after: u64, limit: usize) -> Result<Vec<Quarantined>, QueueError> {
        self.look(move |sql| quarantine::list(sql, after, limit, rows::MAX_READ))
            .await
    }

    /// Numbers of rows in each state.
    pub async fn state(&self) -> Result<SpoolState, QueueError> {
        self.look(rows::state).await
    }

    /// Writes what was handed in, and stops.
    pub async fn close(&self) {
        drop(self.inbox.close());
        let thread = lock(&self.thread).take();
        let _ = tokio::task::spawn_blocking(|| thread.map(JoinHandle::join)).await;
    }

    fn change<C>(&self, change: C) -> impl Future<Output = Result<(), QueueError>> + use<W, C>
    where
        C: FnMut(&Connection) -> rusqlite::Result<()> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.inbox.submit(Change { change, reply });
        answered(answer)
    }

    /// Reads, once everything is written that was handed in before.
    async fn look<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, QueueError> {
        let (reply, answer) = oneshot::channel();
        let status = Arc::clone(self.inbox.status());
        self.inbox.read(move |sql| {
            let read = read(sql).map_err(|error| {
                // A file that is damaged for reading must not be written any more.
                if let failure @ Failure::Broken(_) = Failure::from(&error) {
                    status.note(&failure);
                    return QueueError::from(failure);
                }
                unreadable(error)
            });
            let _ = reply.send(read);
        });
        answered(answer).await
    }
}

async fn answered<T>(answer: oneshot::Receiver<Result<T, QueueError>>) -> Result<T, QueueError> {
    answer.await.unwrap_or(Err(QueueError::Closed))
}

#[cfg(test)]
mod tests;
