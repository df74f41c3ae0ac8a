//! State that the writer, the tail reader and the callers share.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::Thread;
use std::time::Instant;

use event_model::{Clock, Event};
use sqlite_file::rows::nanos;
use sqlite_file::{FileStatus, Inbox, Job, lock};

use crate::reading::route::RouteBuffer;
use crate::writing::job::QueueJobs;

/// State that the threads of an open queue share.
pub(crate) struct Shared {
    pub(crate) epoch: String,
    /// The newest committed position.
    pub(crate) last: AtomicU64,
    /// True while the file is at its retention limit with what may not be removed.
    pub(crate) full: AtomicBool,
    pub(crate) routes: Mutex<Vec<Arc<RouteBuffer>>>,
    pub(crate) leases: Mutex<HashMap<LeaseKey, OpenLease>>,
    pub(crate) recent: Mutex<RecentEvents>,
    pub(crate) closing: AtomicBool,
    /// Seconds for which ids are known; `u64::MAX` before the first measurement.
    pub(crate) ids_known_for: AtomicU64,
    /// Bytes of bodies in the quarantine.
    pub(crate) quarantined: AtomicU64,
    /// True if another connection has changed the file, so that more may be due.
    pub(crate) others_wrote: AtomicBool,
    pub(crate) inbox: Inbox<QueueJobs>,
    clock: Arc<dyn Clock>,
    tail_reader: OnceLock<Thread>,
    /// Source of the state of this process's routes.
    pub(crate) look: Mutex<Option<queue::StatusSource>>,
}

/// Key of one delivery of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LeaseKey {
    pub(crate) route: i64,
    pub(crate) position: u64,
    pub(crate) redrive: u32,
}

/// A delivery that was handed out, and the end of its lease.
#[derive(Debug)]
pub(crate) struct OpenLease {
    pub(crate) attempt: u32,
    pub(crate) until: Instant,
    pub(crate) route: Arc<RouteBuffer>,
}

/// The newest events in memory, so that routes that keep up need not read the file.
#[derive(Debug, Default)]
pub(crate) struct RecentEvents {
    events: VecDeque<(u64, Arc<Event>)>,
    bytes: usize,
}

impl RecentEvents {
    /// Bounds on memory; a route that lags further behind reads the file.
    const MAX_BYTES: usize = 2 << 20;
    const MAX_EVENTS: usize = 1024;

    pub(crate) fn push(&mut self, position: u64, event: Arc<Event>) {
        if self
            .events
            .back()
            .is_some_and(|(newest, _)| newest + 1 != position)
        {
            // Another process has published in between, which leaves a gap.
            *self = Self::default();
        }
        self.bytes += event.body().len();
        self.events.push_back((position, event));
        while self.bytes > Self::MAX_BYTES || self.events.len() > Self::MAX_EVENTS {
            let Some((_, oldest)) = self.events.pop_front() else {
                break;
            };
            self.bytes -= oldest.body().len();
        }
    }

    /// Events after `position`, if none in between is missing.
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
        f.debug_struct("Shared")
            .field("path", &self.status().path())
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(
        epoch: String,
        last: u64,
        inbox: Inbox<QueueJobs>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            epoch,
            last: AtomicU64::new(last),
            full: AtomicBool::new(false),
            routes: Mutex::default(),
            leases: Mutex::default(),
            recent: Mutex::default(),
            closing: AtomicBool::new(false),
            ids_known_for: AtomicU64::new(u64::MAX),
            quarantined: AtomicU64::new(0),
            others_wrote: AtomicBool::new(false),
            inbox,
            clock,
            tail_reader: OnceLock::new(),
            look: Mutex::default(),
        }
    }

    /// Hands `job` to the writer.
    pub(crate) fn submit(&self, job: impl Job<QueueJobs> + 'static) {
        self.inbox.submit(job);
    }

    /// The current time, in Unix nanoseconds.
    pub(crate) fn now(&self) -> i64 {
        nanos(self.clock.now())
    }

    pub(crate) fn set_tail_reader(&self, thread: Thread) {
        let _ = self.tail_reader.set(thread);
    }

    pub(crate) fn wake_tail_reader(&self) {
        if let Some(thread) = self.tail_reader.get() {
            thread.unpark();
        }
    }

    /// Status of the writer.
    pub(crate) fn status(&self) -> &Arc<FileStatus> {
        self.inbox.status()
    }

    pub(crate) fn route(&self, name: &str) -> Option<Arc<RouteBuffer>> {
        lock(&self.routes)
            .iter()
            .find(|route| route.name == name)
            .cloned()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}
