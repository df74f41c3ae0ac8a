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

/// The time for each step of a stop, counted from the beginning of draining.
#[derive(Clone, Copy, Debug)]
pub struct StopTimes {
    /// Time for work in flight to finish.
    pub finish: Duration,
    /// Time for the rest to notice the hard stop and give back its deliveries.
    pub give_back: Duration,
    /// Time for the last requests once the port is shut. With a socket that outlives the process
    /// they get two seconds.
    pub last_requests: Duration,
    /// Time for everything. Nothing is waited for beyond it.
    pub total: Duration,
    /// True if webhooks come to a port of this process, which must not be shut for long before
    /// the end.
    pub shuts_a_port: bool,
}

impl StopTimes {
    /// The times of a process that receives webhooks. It ends within ten seconds, and its port is
    /// shut for at most the last one: Fluent tries for 14 s.
    pub const RECEIVING: Self = Self {
        finish: Duration::from_secs(8),
        give_back: Duration::from_millis(500),
        last_requests: Duration::from_millis(400),
        total: Duration::from_millis(9_700),
        shuts_a_port: true,
    };

    /// The times of any other process: a handler may take its time, and other processes deliver
    /// meanwhile. Below the 60 s that containers are given.
    pub const DELIVERING: Self = Self {
        finish: Duration::from_secs(25),
        give_back: Duration::from_secs(3),
        last_requests: Duration::from_secs(1),
        total: Duration::from_secs(44),
        shuts_a_port: false,
    };
}

/// Longest time to send telemetry before the port shuts, if so much is left.
const FLUSH_WITHIN: Duration = Duration::from_secs(3);

/// Time from shutting the port to the end: the last requests, closing the queue, and the work on
/// exit. Connections are refused in this time.
const SHUT_FOR: Duration = Duration::from_millis(900);

/// Longest time for the last requests with a socket that outlives the process. New connections
/// wait in it meanwhile, for these and for the next process to start.
const NOBODY_ACCEPTS: Duration = Duration::from_secs(2);

/// Tells tasks when to stop, and waits for their end. Clones belong to one process.
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
    /// The first critical task that ended on its own.
    ended: OnceLock<String>,
    flushes: Mutex<Vec<Flush>>,
    on_exit: Mutex<Vec<OnExit>>,
}

/// Work that may block, and is abandoned if it blocks for too long.
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
    /// A shutdown that begins by [`Shutdown::begin`], and gives work in flight the time `finish`.
    pub fn manual(finish: Duration) -> Self {
        Self::new(StopTimes {
            finish,
            ..StopTimes::DELIVERING
        })
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

    /// A shutdown that begins with SIGTERM or SIGINT. Each further signal goes on to the next
    /// step at once.
    pub fn on_signal(times: StopTimes) -> std::io::Result<Self> {
        let shutdown = Self::new(times);
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let told = shutdown.clone();
        shutdown.spawn_detached(async move {
            let mut signal =
                async || tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} };
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

    /// Begins to drain at once.
    pub fn begin(&self) {
        let _ = self.shared.draining_since.set(Instant::now());
        self.not_ready.cancel();
        self.draining.cancel();
    }

    /// Sets the time from a signal to draining. Only the first call counts.
    pub(crate) fn drain_after(&self, notice: Duration) {
        let _ = self.shared.drain_after.set(notice);
    }

    /// Notes that the webhook port stays open when this process ends: whoever started the process
    /// has the socket, and new connections wait in it.
    pub fn socket_outlives_us(&self) {
        self.shared.outlives_us.store(true, Ordering::Release);
    }

    /// True if the webhook port stays open when this process ends.
    pub fn does_socket_outlive_us(&self) -> bool {
        self.shared.outlives_us.load(Ordering::Acquire)
    }

    /// Registers work to send telemetry while webhooks are still accepted: if it took long after
    /// that, the port would be shut for longer. It may block, and may be cut off.
    pub fn before_closing(&self, work: impl Fn() + Send + Sync + 'static) {
        lock(&self.shared.flushes).push(Flush(Arc::new(work)));
    }

    /// Registers work for the end, after all tasks, within what is left of the time. It may
    /// block, and may be cut off.
    pub fn on_exit(&self, work: impl FnOnce() + Send + 'static) {
        lock(&self.shared.on_exit).push(OnExit(Box::new(work)));
    }

    /// Fires when nobody should send anything to this process any more.
    pub fn not_ready(&self) -> CancellationToken {
        self.not_ready.clone()
    }

    /// Fires when nothing new should be taken from the queue or from callers. Webhooks are still
    /// accepted.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Fires when deliveries in progress should be given back.
    pub fn hard_stop(&self) -> CancellationToken {
        self.hard_stop.clone()
    }

    /// Fires when the webhook port should be shut, as all other work is done.
    pub fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// Runs a task that [`Shutdown::finish`] waits for before the port is shut.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Runs a task like [`Shutdown::spawn`] that the process can't work without. If it ends
    /// before a stop was asked for, by a panic too, [`Shutdown::critical_task_ended`] returns: a
    /// process must not look well with a part of it dead.
    pub fn spawn_critical(
        &self,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let critical = CriticalTask {
            name: name.into(),
            shutdown: self.clone(),
        };
        self.spawn(async move {
            let _critical = critical;
            task.await;
        });
    }

    /// Waits until a critical task ends before a stop was asked for, and returns its name.
    pub async fn critical_task_ended(&self) -> String {
        self.has_task_ended.cancelled().await;
        self.shared.ended.get().cloned().unwrap_or_default()
    }

    /// A token that [`Shutdown::finish`] waits for, until it is dropped.
    pub fn track(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// Runs a task of the webhook port. It goes on until `closing`, and then briefly.
    pub fn spawn_intake(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.intake.spawn(task);
    }

    /// Runs a task that nobody waits for and that ends with the process: for what must still
    /// answer while everything else ends.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the door for tasks nobody waits for"
    )]
    pub fn spawn_detached(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    /// Goes through the steps, each within its time. Only the first call does.
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
            true => self
                .remaining()
                .saturating_sub(SHUT_FOR / 2)
                .min(NOBODY_ACCEPTS),
            false => {
                let _ = self.shared.shut_since.set(Instant::now());
                self.times.last_requests
            }
        };
        if timeout(last_requests, self.intake.wait()).await.is_err() {
            tracing::warn!(
                connections = self.intake.len(),
                "connections were cut: their senders send again"
            );
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
        tracing::warn!(
            tasks = self.tasks.len(),
            "not finished in time: what is held is given back"
        );
        self.hard_stop.cancel();
        if timeout(self.times.give_back, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::error!(tasks = self.tasks.len(), "tasks left behind");
        }
    }

    async fn flush(&self) {
        let flushes = std::mem::take(&mut *lock(&self.shared.flushes));
        let within = self.remaining().saturating_sub(SHUT_FOR).min(FLUSH_WITHIN);
        let work = spawn_blocking(move || flushes.iter().for_each(|Flush(work)| work()));
        let _ = timeout(within, work).await;
    }

    /// Runs the work that [`Shutdown::on_exit`] registered.
    pub(crate) async fn exit(&self) {
        let on_exit = std::mem::take(&mut *lock(&self.shared.on_exit));
        let work = spawn_blocking(move || on_exit.into_iter().for_each(|OnExit(work)| work()));
        let _ = timeout(self.remaining(), work).await;
    }

    /// The time left to stop in. All of it as long as no stop has begun.
    pub fn remaining(&self) -> Duration {
        let since = |at: &OnceLock<Instant>| at.get().map(Instant::elapsed);
        let left = self
            .times
            .total
            .saturating_sub(since(&self.shared.draining_since).unwrap_or_default());
        match since(&self.shared.shut_since) {
            Some(shut_for) if self.times.shuts_a_port => {
                left.min(SHUT_FOR.saturating_sub(shut_for))
            }
            _ => left,
        }
    }
}

/// Notes the end of a critical task on drop, so that a panic counts too.
struct CriticalTask {
    name: String,
    shutdown: Shutdown,
}

impl Drop for CriticalTask {
    fn drop(&mut self) {
        if self.shutdown.draining.is_cancelled() {
            return;
        }
        let _ = self
            .shutdown
            .shared
            .ended
            .set(std::mem::take(&mut self.name));
        self.shutdown.has_task_ended.cancel();
    }
}

fn lock<T>(it: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}
