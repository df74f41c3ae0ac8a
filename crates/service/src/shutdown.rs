//! Stopping a process in steps, each with a bound.
//!
//! ```text
//! signal ─▶ not ready ─drain-after─▶ draining ─▶ hard stop ─▶ closing ─▶ end
//!             say so      nothing      finish        give        the webhook port
//!             only        new is       what is       back what   shuts, its last
//!                         taken        in flight     is not done requests are answered
//! ```
//!
//! A process that webhooks are sent to accepts them until `closing`: an accepted event
//! is durable and needs no dispatcher, and Fluent tries for 14 s only.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long each step of a stop may take, counted from the beginning of draining.
#[derive(Clone, Copy, Debug)]
pub struct StopTimes {
    /// For what is in flight to finish.
    pub finish: Duration,
    /// For what did not, to notice the hard stop and give back what it holds.
    pub give_back: Duration,
    /// For the last requests once the port is shut. With a socket that outlives the
    /// process they get two seconds.
    pub last_requests: Duration,
    /// For everything: nothing is waited for beyond it.
    pub total: Duration,
    /// Webhooks come to a port of this process, which must not be shut for long before
    /// the end.
    pub shuts_a_port: bool,
}

impl StopTimes {
    /// Of a process that webhooks are sent to. It ends within ten seconds, and its port
    /// is shut for the last of them at most: Fluent tries for 14 s.
    pub const RECEIVING: Self = Self {
        finish: Duration::from_secs(8),
        give_back: Duration::from_millis(500),
        last_requests: Duration::from_millis(400),
        total: Duration::from_millis(9_700),
        shuts_a_port: true,
    };

    /// Of any other: a handler may take its time, and others deliver meanwhile. Below the
    /// 60 s that containers are given.
    pub const DELIVERING: Self = Self {
        finish: Duration::from_secs(25),
        give_back: Duration::from_secs(3),
        last_requests: Duration::from_secs(1),
        total: Duration::from_secs(44),
        shuts_a_port: false,
    };
}

/// What is sent before the port shuts may take so long, where time is left.
const FLUSH_WITHIN: Duration = Duration::from_secs(3);

/// From shutting the port to the end: the last requests, closing the queue, and what is
/// done on exit. Whoever connects meanwhile is refused.
const SHUT_FOR: Duration = Duration::from_millis(900);

/// With a socket that outlives us the last requests may take so long: what comes meanwhile
/// waits in it, for them and for the next process to start.
const NOBODY_ACCEPTS: Duration = Duration::from_secs(2);

/// Tells tasks when to stop, and knows when they have. Clones are of one process.
#[derive(Clone, Debug)]
pub struct Shutdown {
    not_ready: CancellationToken,
    draining: CancellationToken,
    hard_stop: CancellationToken,
    closing: CancellationToken,
    has_task_ended: CancellationToken,
    tasks: TaskTracker,
    intake: TaskTracker,
    times: StopTimes,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    drain_after: OnceLock<Duration>,
    draining_since: OnceLock<Instant>,
    shut_since: OnceLock<Instant>,
    is_finished: AtomicBool,
    outlives_us: AtomicBool,
    /// The first task that the process is there for and that ended on its own.
    ended: OnceLock<String>,
    flushes: Mutex<Vec<Flush>>,
    on_exit: Mutex<Vec<OnExit>>,
}

/// May block; is left behind if it does for too long.
struct Flush(Arc<dyn Fn() + Send + Sync>);

struct OnExit(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flush(..)")
    }
}

impl fmt::Debug for OnExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnExit(..)")
    }
}

impl Shutdown {
    /// One that begins when it is told to, and gives what is in flight so long.
    pub fn manual(finish: Duration) -> Self {
        Self::new(StopTimes { finish, ..StopTimes::DELIVERING })
    }

    fn new(times: StopTimes) -> Self {
        Self {
            not_ready: CancellationToken::new(),
            draining: CancellationToken::new(),
            hard_stop: CancellationToken::new(),
            closing: CancellationToken::new(),
            has_task_ended: CancellationToken::new(),
            tasks: TaskTracker::new(),
            intake: TaskTracker::new(),
            times,
            shared: Arc::default(),
        }
    }

    /// One that begins with SIGTERM or SIGINT; each further signal goes on to the next
    /// step at once.
    pub fn on_signal(times: StopTimes) -> std::io::Result<Self> {
        let shutdown = Self::new(times);
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let told = shutdown.clone();
        shutdown.spawn_detached(async move {
            let mut signal = async || tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} };
            signal().await;
            told.not_ready.cancel();
            let drain_after = told.shared.drain_after.get().copied().unwrap_or_default();
            let _ = timeout(drain_after, signal()).await;
            told.begin();
            signal().await;
            told.hard_stop.cancel();
        });
        Ok(shutdown)
    }

    /// Begins to drain, without notice.
    pub fn begin(&self) {
        let _ = self.shared.draining_since.set(Instant::now());
        self.not_ready.cancel();
        self.draining.cancel();
    }

    /// How long after a signal draining begins. The first to say so is heard.
    pub(crate) fn drain_after(&self, notice: Duration) {
        let _ = self.shared.drain_after.set(notice);
    }

    /// The webhook port stays open when this process ends: whoever started it holds the
    /// socket, and what comes meanwhile waits in it.
    pub fn socket_outlives_us(&self) {
        self.shared.outlives_us.store(true, Ordering::Release);
    }

    /// Whether it does.
    pub fn does_socket_outlive_us(&self) -> bool {
        self.shared.outlives_us.load(Ordering::Acquire)
    }

    /// Sends what was gathered, while webhooks are still accepted: what takes long must
    /// not take it from the port. May block; may be cut off.
    pub fn before_closing(&self, work: impl Fn() + Send + Sync + 'static) {
        lock(&self.shared.flushes).push(Flush(Arc::new(work)));
    }

    /// Does this when all work has ended, within what is left of the time. May block; may
    /// be cut off.
    pub fn on_exit(&self, work: impl FnOnce() + Send + 'static) {
        lock(&self.shared.on_exit).push(OnExit(Box::new(work)));
    }

    /// Fires when nobody should send anything here any more.
    pub fn not_ready(&self) -> CancellationToken {
        self.not_ready.clone()
    }

    /// Fires when nothing new should be taken from the queue or from callers. Webhooks are
    /// accepted still.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Fires when what is held should be given back.
    pub fn hard_stop(&self) -> CancellationToken {
        self.hard_stop.clone()
    }

    /// Fires when the webhook port should be shut: nothing else is left to do.
    pub fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Runs a task that [`Shutdown::finish`] waits for before the port is shut.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// The same of a task that the process is there for. If it ends, by a panic too, before
    /// anybody asked for a stop, [`Shutdown::critical_task_ended`] says so: a process must
    /// not look well with a part of it dead.
    pub fn spawn_critical(&self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        let critical = CriticalTask { name: name.into(), shutdown: self.clone() };
        self.spawn(async move {
            let _critical = critical;
            task.await;
        });
    }

    /// Waits until a critical task ends though nobody asked for a stop, and says which.
    pub async fn critical_task_ended(&self) -> String {
        self.has_task_ended.cancelled().await;
        self.shared.ended.get().cloned().unwrap_or_default()
    }

    /// Something that [`Shutdown::finish`] waits for, until it is dropped.
    pub fn working(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// Runs a task of the webhook port: it goes on until `closing`, and then briefly.
    pub fn spawn_intake(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.intake.spawn(task);
    }

    /// Runs a task that nobody waits for: it ends with the process. For what
    /// must still answer while everything else ends.
    #[expect(clippy::disallowed_methods, reason = "this is the door for tasks nobody waits for")]
    pub fn spawn_detached(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    /// Goes through the steps, each within its time. Done once.
    pub async fn finish(&self) {
        self.begin();
        self.tasks.close();
        self.intake.close();
        if self.shared.is_finished.swap(true, Ordering::AcqRel) {
            return;
        }
        self.finish_tasks().await;
        self.flush().await;
        self.closing.cancel();
        let last_requests = match self.does_socket_outlive_us() {
            true => self.remaining().saturating_sub(SHUT_FOR / 2).min(NOBODY_ACCEPTS),
            false => {
                let _ = self.shared.shut_since.set(Instant::now());
                self.times.last_requests
            }
        };
        if timeout(last_requests, self.intake.wait()).await.is_err() {
            tracing::warn!(connections = self.intake.len(), "connections were cut: their senders send again");
        }
    }

    async fn finish_tasks(&self) {
        let finished = tokio::select! {
            finished = timeout(self.times.finish, self.tasks.wait()) => finished.is_ok(),
            () = self.hard_stop.cancelled() => false,
        };
        if finished {
            return;
        }
        tracing::warn!(tasks = self.tasks.len(), "not finished in time: what is held is given back");
        self.hard_stop.cancel();
        if timeout(self.times.give_back, self.tasks.wait()).await.is_err() {
            tracing::error!(tasks = self.tasks.len(), "tasks left behind");
        }
    }

    async fn flush(&self) {
        let flushes = std::mem::take(&mut *lock(&self.shared.flushes));
        let within = self.remaining().saturating_sub(SHUT_FOR).min(FLUSH_WITHIN);
        let work = spawn_blocking(move || flushes.iter().for_each(|Flush(work)| work()));
        let _ = timeout(within, work).await;
    }

    /// What is to be done last.
    pub(crate) async fn exit(&self) {
        let on_exit = std::mem::take(&mut *lock(&self.shared.on_exit));
        let work = spawn_blocking(move || on_exit.into_iter().for_each(|OnExit(work)| work()));
        let _ = timeout(self.remaining(), work).await;
    }

    /// What is left of the time to stop in; all of it while nothing stops.
    pub fn remaining(&self) -> Duration {
        let since = |at: &OnceLock<Instant>| at.get().map(Instant::elapsed);
        let left = self.times.total.saturating_sub(since(&self.shared.draining_since).unwrap_or_default());
        match since(&self.shared.shut_since) {
            Some(shut_for) if self.times.shuts_a_port => left.min(SHUT_FOR.saturating_sub(shut_for)),
            _ => left,
        }
    }
}

/// Notes the end of a critical task, however it comes.
struct CriticalTask {
    name: String,
    shutdown: Shutdown,
}

impl Drop for CriticalTask {
    fn drop(&mut self) {
        if self.shutdown.draining.is_cancelled() {
            return;
        }
        let _ = self.shutdown.shared.ended.set(std::mem::take(&mut self.name));
        self.shutdown.has_task_ended.cancel();
    }
}

fn lock<T>(it: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}
