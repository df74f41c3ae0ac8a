use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long what is in flight may take to end.
const GRACE: Duration = Duration::from_secs(25);

/// How long after that a task may take to notice that it must end. Together
/// they are below the 30 s after which Kubernetes kills.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Tells tasks when to stop, and knows when they have.
///
/// Stopping has three steps. First `leaving`: say that you are not ready, and work on
/// until whoever sends work has noticed. Then `draining`: take nothing new. Then, after
/// a grace period, `out_of_patience`: give up what you hold.
#[derive(Clone, Debug)]
pub struct Shutdown {
    leaving: CancellationToken,
    draining: CancellationToken,
    out_of_patience: CancellationToken,
    tasks: TaskTracker,
    grace: Duration,
    notice: Arc<OnceLock<Duration>>,
    left_at: Arc<OnceLock<Instant>>,
    is_finished: Arc<AtomicBool>,
    last: Arc<Mutex<Vec<Last>>>,
}

/// What is to be done when all work has ended; may block.
struct Last(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Last(..)")
    }
}

impl Shutdown {
    /// One that begins when it is told to.
    pub fn manual(grace: Duration) -> Self {
        Self {
            leaving: CancellationToken::new(),
            draining: CancellationToken::new(),
            out_of_patience: CancellationToken::new(),
            tasks: TaskTracker::new(),
            grace,
            notice: Arc::default(),
            left_at: Arc::default(),
            is_finished: Arc::default(),
            last: Arc::default(),
        }
    }

    /// Does this when all work has ended; may block for a few seconds.
    pub fn at_last(&self, work: impl FnOnce() + Send + 'static) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).push(Last(Box::new(work)));
    }

    /// Does what is to be done last.
    pub(crate) async fn say_last(&self) {
        let last = std::mem::take(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = tokio::task::spawn_blocking(move || last.into_iter().for_each(|Last(work)| work())).await;
    }

    /// One that begins with SIGTERM or SIGINT; each further signal goes on to the next
    /// step at once.
    pub fn on_signal() -> std::io::Result<Self> {
        let shutdown = Self::manual(GRACE);
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let told = shutdown.clone();
        shutdown.spawn_unwaited(async move {
            let mut signal = async || tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} };
            signal().await;
            told.leave();
            let _ = timeout(told.notice(), signal()).await;
            told.draining.cancel();
            signal().await;
            told.out_of_patience.cancel();
        });
        Ok(shutdown)
    }

    /// Begins to stop, without notice.
    pub fn begin(&self) {
        self.leave();
        self.draining.cancel();
    }

    fn leave(&self) {
        let _ = self.left_at.set(Instant::now());
        self.leaving.cancel();
    }

    /// How long after a signal draining begins; it comes out of the grace. The first to
    /// say so is heard.
    pub(crate) fn drain_after(&self, notice: Duration) {
        let _ = self.notice.set(notice);
    }

    fn notice(&self) -> Duration {
        self.notice.get().copied().unwrap_or_default()
    }

    /// Fires when nobody should send anything here any more.
    pub fn leaving(&self) -> CancellationToken {
        self.leaving.clone()
    }

    /// Fires when nothing new should be taken.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Fires when what is held should be given up.
    pub fn out_of_patience(&self) -> CancellationToken {
        self.out_of_patience.clone()
    }

    /// Runs a task that [`Shutdown::finish`] waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Something that [`Shutdown::finish`] waits for, until it is dropped.
    pub fn working(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// Runs a task that nobody waits for: it ends with the process. For what
    /// must still answer while everything else ends.
    #[expect(clippy::disallowed_methods, reason = "this is the door for tasks nobody waits for")]
    pub fn spawn_unwaited(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    /// Waits for every task; after the grace period, which a notice is part of, cuts them
    /// short. Done once.
    pub async fn finish(&self) {
        self.begin();
        self.tasks.close();
        if self.is_finished.swap(true, Ordering::AcqRel) {
            return;
        }
        let noticed = self.left_at.get().map(Instant::elapsed).unwrap_or_default();
        if timeout(self.grace.saturating_sub(noticed.min(self.notice())), self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "grace period over");
            self.out_of_patience.cancel();
            if timeout(LAST_WORDS, self.tasks.wait()).await.is_err() {
                tracing::error!(tasks = self.tasks.len(), "tasks left behind");
            }
        }
    }
}
