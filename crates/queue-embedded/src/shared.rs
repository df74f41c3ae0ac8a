use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use event_model::{Clock, Event};
use queue::QueueError;
use tokio::sync::watch;

use crate::file::failure::Failure;
use crate::file::rows::nanos;
use crate::reading::route::RouteBuffer;
use crate::writing::writer::{Job, Message};

/// What the writer, the tail reader and the callers have in common.
pub(crate) struct Shared {
    pub(crate) path: PathBuf,
    pub(crate) epoch: String,
    /// The newest committed position.
    pub(crate) last: AtomicU64,
    /// The retention limit is reached by what nobody has settled.
    pub(crate) full: AtomicBool,
    pub(crate) routes: Mutex<Vec<Arc<RouteBuffer>>>,
    pub(crate) leases: Mutex<HashMap<LeaseKey, Held>>,
    pub(crate) recent: Mutex<Recent>,
    pub(crate) closing: AtomicBool,
    /// For how many seconds ids are known; `u64::MAX` before that was looked at.
    pub(crate) ids_known_for: AtomicU64,
    /// Bytes of bodies in the quarantine.
    pub(crate) quarantined: AtomicU64,
    /// The last group was not written, for want of room or because the file was gone.
    pub(crate) is_impeded: AtomicBool,
    /// Since when a group is being written.
    pub(crate) writing_since: Mutex<Option<Instant>>,
    /// Bytes of bodies that wait for the writer.
    waiting: Arc<AtomicUsize>,
    /// Another connection has changed the file: what is due may be more.
    pub(crate) others_wrote: AtomicBool,
    inbox: Sender<Message>,
    clock: Arc<dyn Clock>,
    feeder: OnceLock<Thread>,
    failed: watch::Sender<Option<String>>,
    /// How this process's routes stand.
    pub(crate) look: Mutex<Option<queue::Look>>,
}

/// How long one write may take before the process is no longer ready: Fluent gives up after
/// 14 s, and another process may do better.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of bodies that wait for the writer, at most. Those who wait give up before a disk
/// that hangs answers, and what they handed in stays.
const MOST_WAITING: usize = 64 << 20;

/// A body that waits for the writer, until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    all: Arc<AtomicUsize>,
    length: usize,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.fetch_sub(self.length, Ordering::AcqRel);
    }
}

/// Names one delivery of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LeaseKey {
    pub(crate) route: i64,
    pub(crate) position: u64,
    pub(crate) redrive: u32,
}

/// A delivery that was handed out.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) attempt: u32,
    pub(crate) until: Instant,
    pub(crate) route: Arc<RouteBuffer>,
}

/// The newest events, so that routes that keep up need not read the file.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    events: VecDeque<(u64, Arc<Event>)>,
    bytes: usize,
}

impl Recent {
    /// A bound on memory; a route that lags further behind reads the file.
    const MAX_BYTES: usize = 2 << 20;
    const MAX_EVENTS: usize = 1024;

    pub(crate) fn push(&mut self, position: u64, event: Arc<Event>) {
        if self.events.back().is_some_and(|(newest, _)| newest + 1 != position) {
            // Another process published in between; what is here has a hole.
            *self = Self::default();
        }
        self.bytes += event.body().len();
        self.events.push_back((position, event));
        while self.bytes > Self::MAX_BYTES || self.events.len() > Self::MAX_EVENTS {
            let Some((_, oldest)) = self.events.pop_front() else { break };
            self.bytes -= oldest.body().len();
        }
    }

    /// Events after `position`, if none between is missing.
    pub(crate) fn after(&self, position: u64, limit: usize) -> Option<Vec<(u64, Arc<Event>)>> {
        let (first, _) = self.events.front()?;
        if *first > position + 1 {
            return None;
        }
        let skip = self.events.partition_point(|(p, _)| *p <= position);
        Some(self.events.iter().skip(skip).take(limit).cloned().collect())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("path", &self.path).field("last", &self.last).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(
        path: PathBuf,
        epoch: String,
        last: u64,
        inbox: Sender<Message>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            path,
            epoch,
            last: AtomicU64::new(last),
            full: AtomicBool::new(false),
            routes: Mutex::default(),
            leases: Mutex::default(),
            recent: Mutex::default(),
            closing: AtomicBool::new(false),
            ids_known_for: AtomicU64::new(u64::MAX),
            quarantined: AtomicU64::new(0),
            is_impeded: AtomicBool::new(false),
            writing_since: Mutex::default(),
            waiting: Arc::default(),
            others_wrote: AtomicBool::new(false),
            inbox,
            clock,
            feeder: OnceLock::new(),
            failed: watch::Sender::new(None),
            look: Mutex::default(),
        }
    }

    /// Hands `job` to the writer. The channel has no bound of its own: every
    /// kind of job is bounded by those who wait for it (connections, permits,
    /// routes). After the writer's end, jobs are dropped, which their senders
    /// read as [`queue::QueueError::Closed`].
    pub(crate) fn submit(&self, job: impl Job + 'static) {
        let _ = self.inbox.send(Message::Job(Box::new(job)));
    }

    pub(crate) fn send(&self, message: Message) {
        let _ = self.inbox.send(message);
    }

    /// Unix time in nanoseconds.
    pub(crate) fn now(&self) -> i64 {
        nanos(self.clock.now())
    }

    pub(crate) fn set_feeder(&self, thread: Thread) {
        let _ = self.feeder.set(thread);
    }

    pub(crate) fn wake_feeder(&self) {
        if let Some(thread) = self.feeder.get() {
            thread.unpark();
        }
    }

    /// Why nothing can be written any more.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    pub(crate) fn watch_failure(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    /// Acts on a failed group: most pass, a broken file does not.
    pub(crate) fn note(&self, failure: &Failure) {
        match failure {
            Failure::Full | Failure::Gone | Failure::Refused(_)
                if self.is_impeded.swap(true, Ordering::AcqRel) => {}
            Failure::Full => tracing::error!(
                "the disk of the queue file is full: nothing can be stored until there is room"
            ),
            Failure::Gone => tracing::error!(
                file = %self.path.display(),
                process = std::process::id(),
                "the queue file was removed, renamed or replaced while it was served: nothing is accepted until it is back; what it holds is lost when this process ends, and can be copied until then from /proc/<process>/fd"
            ),
            Failure::Refused(error) => tracing::error!(%error, "the queue file can't be written to now"),
            Failure::Busy => tracing::warn!("another process held the queue file for too long"),
            Failure::Broken(why) => {
                if self.stop_serving(why) {
                    tracing::error!(
                        error = why,
                        "the queue file can't be trusted any more; it will be set aside at the next start"
                    );
                    crate::file::door::mark_untrusted(&self.path, why);
                }
            }
        }
    }

    /// Ends the queue in this process, which says nothing against its file. Whether this is
    /// the first word of it.
    pub(crate) fn stop_serving(&self, why: &str) -> bool {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| why.to_owned());
            first
        })
    }

    /// Whether the disk has not answered for so long that nobody should wait for it.
    pub(crate) fn is_hung(&self) -> bool {
        lock(&self.writing_since).is_some_and(|since| since.elapsed() > PATIENCE)
    }

    /// Counts a body of this length among those that wait for the writer.
    ///
    /// # Errors
    /// If too many do already: the disk is slower than they come, or hangs.
    pub(crate) fn begin_waiting(&self, length: usize) -> Result<Waiting, QueueError> {
        let waiting = Waiting { all: Arc::clone(&self.waiting), length };
        match self.waiting.fetch_add(length, Ordering::AcqRel) + length > MOST_WAITING {
            true => Err(QueueError::unavailable(
                "writing to the queue file",
                "more waits for the disk than may: it hangs, or is too slow",
            )),
            false => Ok(waiting),
        }
    }

    pub(crate) fn route(&self, name: &str) -> Option<Arc<RouteBuffer>> {
        lock(&self.routes).iter().find(|route| route.name == name).cloned()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

/// Our critical sections do not panic; if one did, its data is still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
