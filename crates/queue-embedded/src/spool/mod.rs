//! The store of a spool: events that are not yet safe in a queue elsewhere.
//!
//! A row is *unsent* until the queue has acknowledged it, *acknowledged* until
//! it was read back there, and then it goes. What can't be sent at all is *set
//! aside*, and said so. One thread writes and reads; what it kept, it hands on
//! in the order of its rows.

mod rows;
mod work;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use event_model::{Clock, Event, EventId, Timestamp};
use queue::{Position, Quarantined, QueueError};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::file::door::{self, OpenError};
use crate::file::failure::Failure;
use crate::file::held::HeldFile;
use crate::file::schema::{Kind, meta};
use crate::shared::{PATIENCE, lock};
use crate::spool::work::{Task, Worker};
use crate::writing::housekeeping::used_bytes;

/// One event that was kept.
#[derive(Debug)]
pub struct Kept {
    /// Names it here; rises in the order in which events were kept.
    pub row: i64,
    /// It was here before.
    pub is_duplicate: bool,
}

/// Where the queue says that it stored a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The row.
    pub row: i64,
    /// The life of the queue in which the position counts.
    pub epoch: String,
    /// Where.
    pub position: Position,
}

/// A row that waits to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    /// Whose it is.
    pub id: EventId,
    /// Where it should be.
    pub at: Acknowledged,
    /// When the queue said so.
    pub acknowledged_at: Timestamp,
    /// Where it stands among the unconfirmed: what the next look goes on from.
    pub place: (i64, i64),
}

/// How much there is, and of what kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolState {
    /// Not yet acknowledged by the queue.
    pub unsent: u64,
    /// Acknowledged, and not yet read back.
    pub unconfirmed: u64,
    /// Refused by the queue for what they are.
    pub set_aside: u64,
    /// Bodies that are not events.
    pub quarantined: u64,
    /// Bytes of all of these.
    pub bytes: u64,
    /// When the oldest unsent one arrived.
    pub oldest_unsent: Option<Timestamp>,
}

/// Bytes of events that wait to be written, at most: those who handed them in give up before a
/// disk that hangs answers, and the events stay.
const MOST_WAITING: u64 = 64 << 20;

/// Who is told of every event that was kept, in order, on the spool's thread:
/// must not block.
pub type OnKept<W> = Box<dyn Fn(i64, Event, W) + Send>;

/// A spool's file, served by this process. `W` goes with an event to whoever is
/// told that it was kept.
pub struct Spool<W: Send + 'static> {
    tasks: Sender<Task<W>>,
    state: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    id: String,
    set_aside: Option<PathBuf>,
    _held: HeldFile,
}

/// What the thread and the callers have in common.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    pub(crate) is_full: AtomicBool,
    pub(crate) failure: Mutex<Option<String>>,
    pub(crate) bytes: AtomicU64,
    /// Bytes of events that wait to be written.
    pub(crate) waiting: AtomicU64,
    /// The file is no longer at its place, or can't be written to.
    pub(crate) is_impeded: AtomicBool,
    /// Since when a group is being written.
    pub(crate) working_since: Mutex<Option<Instant>>,
}

impl<W: Send> fmt::Debug for Spool<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("state", &self.state).finish_non_exhaustive()
    }
}

const SPOOL: Kind = Kind {
    tables: &[rows::TABLES],
    name: "spool",
    not: "events",
    format: 3,
    upgrade: rows::upgrade,
    follow: |_, _| Ok(()),
    check: |sql| rows::last(sql).map(drop),
    advice: "what it still holds is forwarded; then `fluent-webhooks spool status --path` says what is left",
};

impl<W: Send> Spool<W> {
    /// Opens the file, or begins one. At most `limit` bytes are kept.
    ///
    /// A damaged file is set aside whole: see [`Spool::set_aside`].
    pub fn open(
        path: &Path,
        limit: u64,
        clock: Arc<dyn Clock>,
        on_kept: OnKept<W>,
    ) -> Result<Self, OpenError> {
        let opened = door::open(path, &SPOOL, &*clock)?;
        let wrap = |source| OpenError::Sqlite { path: path.to_owned(), source };
        let state = Arc::new(Shared::default());
        rows::mend_clock(&opened.sql, crate::file::rows::nanos(clock.now())).map_err(wrap)?;
        // What it weighs is not counted body by body: it would be read whole before anybody is served.
        state.bytes.store(used_bytes(&opened.sql).map_err(wrap)?, Ordering::Relaxed);
        let id = meta(&opened.sql, "epoch").map_err(wrap)?.unwrap_or_default();
        let (tasks, inbox) = channel();
        let place = Arc::clone(opened.held.place());
        let worker = Worker::new(opened.sql, place, opened.path, limit, Arc::clone(&state), clock, on_kept);
        let thread = std::thread::Builder::new().name("spool".to_owned()).spawn(move || worker.run(&inbox));
        let thread = thread.map_err(|source| OpenError::Io {
            action: "starting the thread of",
            path: path.to_owned(),
            source,
        })?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { tasks, state, thread, id, set_aside: opened.set_aside, _held: opened.held })
    }

    /// Names the file for as long as it lives, wherever it is moved.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where the file went that was here before and could not be trusted.
    pub fn set_aside(&self) -> Option<&PathBuf> {
        self.set_aside.as_ref()
    }

    /// Whether an event can be kept now.
    pub fn has_room(&self) -> bool {
        let is_impeded =
            self.state.is_full.load(Ordering::Acquire) || self.state.is_impeded.load(Ordering::Acquire);
        let is_hung = lock(&self.state.working_since).is_some_and(|since| since.elapsed() > PATIENCE);
        !is_impeded && !is_hung && self.failure().is_none()
    }

    /// Bytes of everything that is kept, as far as they are counted.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Why nothing can be kept any more.
    pub fn failure(&self) -> Option<String> {
        lock(&self.state.failure).clone()
    }

    /// Keeps `event`. When this returns `Ok`, a crash does not lose it. If it is
    /// new, it is handed on with `waiter`.
    pub fn keep(&self, event: Event, waiter: W) -> impl Future<Output = Result<Kept, QueueError>> + use<W> {
        let (reply, answer) = oneshot::channel();
        let bytes = rows::weight(&event);
        // A disk that hangs is as good as full.
        if self.state.waiting.fetch_add(bytes, Ordering::AcqRel) + bytes > MOST_WAITING {
            self.state.waiting.fetch_sub(bytes, Ordering::AcqRel);
            let _ = reply.send(Err(QueueError::Full));
        } else {
            let _ = self.tasks.send(Task::Keep(event, waiter, reply));
        }
        async { answer.await.unwrap_or(Err(QueueError::Closed)) }
    }

    /// Keeps a genuine body that is not an event.
    pub async fn keep_body(&self, body: Quarantined) -> Result<(), QueueError> {
        let (reply, answer) = oneshot::channel();
        let bytes = body.body.len() as u64;
        if self.state.waiting.fetch_add(bytes, Ordering::AcqRel) + bytes > MOST_WAITING {
            self.state.waiting.fetch_sub(bytes, Ordering::AcqRel);
            return Err(QueueError::Full);
        }
        self.submit(Task::KeepBody(body, reply), answer).await
    }

    /// Notes what the queue acknowledged, with the next write: a crash before
    /// it makes the rows be sent again.
    pub fn acknowledged(&self, rows: Vec<Acknowledged>) {
        let _ = self.tasks.send(Task::Acknowledged(rows));
    }

    /// Gives up rows that are safe elsewhere.
    pub async fn remove(&self, rows: Vec<i64>) -> Result<(), QueueError> {
        self.run(move |sql| rows::remove(sql, &rows)).await
    }

    /// Sets a row aside that the queue refuses for what it is.
    pub async fn put_aside(&self, row: i64) -> Result<(), QueueError> {
        self.run(move |sql| rows::put_aside(sql, row)).await
    }

    /// Tries again what was set aside: before everything that is asked after this
    /// call, whether or not its answer is waited for.
    pub fn retry_aside(&self) -> impl Future<Output = Result<(), QueueError>> + use<W> {
        self.run(rows::retry_aside)
    }

    /// Unsent rows of `lane` of `lanes` after `row`, in order. A row that can't
    /// be read any more is set aside, and said so.
    pub async fn unsent(
        &self,
        lane: u8,
        lanes: u8,
        after: i64,
        limit: usize,
    ) -> Result<Vec<(i64, Event)>, QueueError> {
        self.run(move |sql| rows::unsent(sql, lane, lanes, after, limit)).await
    }

    /// Rows acknowledged before `before`, the oldest first, after the place of one.
    pub async fn unconfirmed(
        &self,
        before: Timestamp,
        after: (i64, i64),
        limit: usize,
    ) -> Result<Vec<Unconfirmed>, QueueError> {
        self.run(move |sql| rows::unconfirmed(sql, before, after, limit)).await
    }

    /// The highest acknowledged position of an epoch, and whether there are rows
    /// of another epoch.
    pub async fn acknowledged_in(&self, epoch: String) -> Result<(Position, bool), QueueError> {
        self.run(move |sql| rows::acknowledged_in(sql, &epoch)).await
    }

    /// One event.
    pub async fn event(&self, row: i64) -> Result<Option<Event>, QueueError> {
        self.run(move |sql| rows::one(sql, row)).await
    }

    /// Bodies that are not events, in order.
    pub async fn bodies(&self, limit: usize) -> Result<Vec<Quarantined>, QueueError> {
        self.run(move |sql| crate::beside::quarantined::list(sql, 0, limit)).await
    }

    /// Gives up a body that is safe elsewhere.
    pub async fn remove_body(&self, id: u64) -> Result<(), QueueError> {
        self.run(move |sql| rows::remove_body(sql, id)).await
    }

    /// How much there is.
    pub async fn state(&self) -> Result<SpoolState, QueueError> {
        self.run(rows::state).await
    }

    /// Runs `work` in a transaction, after everything handed in before.
    fn run<T: Send + 'static, F>(&self, work: F) -> impl Future<Output = Result<T, QueueError>> + use<T, F, W>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(move |sql: &Connection| {
            match work(sql) {
                Ok(value) => {
                    let _ = reply.send(Ok(value));
                    Ok(())
                }
                // What is in the file makes no sense: no reason to give it up.
                Err(error) if error.sqlite_error().is_none() => {
                    let _ = reply.send(Err(unreadable(error)));
                    Ok(())
                }
                Err(error) => {
                    let _ = reply.send(Err(Failure::from(&error).into()));
                    Err(error)
                }
            }
        });
        self.submit(Task::Run(work), answer)
    }

    fn submit<T>(
        &self,
        task: Task<W>,
        answer: oneshot::Receiver<Result<T, QueueError>>,
    ) -> impl Future<Output = Result<T, QueueError>> + use<T, W> {
        let _ = self.tasks.send(task);
        async { answer.await.unwrap_or(Err(QueueError::Closed)) }
    }

    /// Writes what was handed in, and stops.
    pub async fn close(&self) {
        let _ = self.tasks.send(Task::Close);
        let thread = lock(&self.thread).take();
        let _ = tokio::task::spawn_blocking(|| thread.map(JoinHandle::join)).await;
    }
}

/// A spool's file that was set aside, to be read row by row: a bad page costs
/// what is on it and no more.
#[derive(Debug)]
pub struct OldSpool(Connection);

impl OldSpool {
    /// Opens it. It is not changed.
    pub fn open(path: &Path) -> Result<Self, QueueError> {
        crate::file::schema::connect(path, false).map(Self).map_err(unreadable)
    }

    /// What names it, as far as that can be read.
    pub fn id(&self) -> Option<String> {
        meta(&self.0, "epoch").ok().flatten()
    }

    /// Its highest row.
    pub fn last(&self) -> Result<i64, QueueError> {
        rows::last(&self.0).map_err(unreadable)
    }

    /// The next row that there is, from this one on; this one where that can't be read.
    pub fn next(&self, row: i64) -> i64 {
        rows::next(&self.0, row).ok().flatten().unwrap_or(row)
    }

    /// One event, whatever became of it; `None` where nothing can be read.
    pub fn event(&self, row: i64) -> Result<Option<Event>, QueueError> {
        rows::any(&self.0, row).map_err(unreadable)
    }

    /// Its bodies that are not events, as far as they can be read.
    pub fn bodies(&self) -> Vec<Quarantined> {
        crate::beside::quarantined::list(&self.0, 0, usize::MAX).unwrap_or_default()
    }
}

fn unreadable(error: rusqlite::Error) -> QueueError {
    QueueError::unavailable("reading the spool", error)
}

/// How many events the queue does not have yet, and when the oldest of them came in:
/// looked up beside whoever serves the file.
pub fn spool_backlog(path: &Path) -> Result<(u64, Option<Timestamp>), QueueError> {
    let read = || rows::backlog(&crate::file::schema::connect(path, false)?);
    read().map_err(unreadable)
}

/// The time up to which everything that came is in the queue, and whether that is all;
/// nothing where so much waits that it would take long to say. Looked up beside whoever
/// serves the file.
pub fn spool_sent_up_to(path: &Path, now: Timestamp) -> Result<Option<(Timestamp, bool)>, QueueError> {
    /// A look of a few milliseconds.
    const MOST: u64 = 20_000;
    let read = || -> rusqlite::Result<_> {
        let sql = crate::file::schema::connect(path, false)?;
        let (unsent, _) = rows::backlog(&sql)?;
        Ok(rows::sent_up_to(&sql, now, MOST)?.map(|up_to| (up_to, unsent == 0)))
    };
    read().map_err(unreadable)
}

/// Looks into a spool's file beside whoever serves it.
pub fn spool_state(path: &Path) -> Result<SpoolState, QueueError> {
    let read = || rows::state(&crate::file::schema::connect(path, false)?);
    read().map_err(|error| QueueError::unavailable("reading the spool", error))
}
