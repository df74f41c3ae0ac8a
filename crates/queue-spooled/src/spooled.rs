//! The intake with a spool, as its callers use it.

use std::fmt;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::store::{File, StoredRow};
use event_model::{Clock, Event};
use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use queue::{
    Impediment, Intake, Lifecycle, OnForwarded, Position, QuarantineOverflow, Quarantined,
    QueueError, QueueHealth, Receipt, RejectedWebhook, SpoolHealth, Upstream,
};
use sqlite_file::OpenError;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::confirm::{self, PresenceCheck};
use crate::forward::{ForwardedHook, Lane, Lanes, settled};
use crate::forward_bodies::{BodyForwarder, OverflowHook};
use crate::options::Options;
use crate::report::{SpoolReporter, salvage_whole};
use crate::salvage::damaged_files;

/// Longest wait for this machine's disk: longer than a write in a group takes on a busy disk, and
/// far shorter than a sender waits.
const DISK_PATIENCE: Duration = Duration::from_secs(1);

/// Epoch in a spool's receipts, by which its positions are told from those of a queue.
const EPOCH: &str = "spool";

/// An intake that stores arrivals on this machine's disk until the queue behind it has them.
///
/// `Spooled` is not a queue: deliveries and stores are those of the queue behind it.
pub struct Spooled {
    queue: Arc<dyn Upstream>,
    spool: Arc<File>,
    /// True if the queue is known to be away, so that no sender waits for it.
    is_away: Arc<AtomicBool>,
    lanes: Arc<Lanes>,
    told: Arc<ForwardedHook>,
    overflow: Arc<OverflowHook>,
    options: Options,
    closing: CancellationToken,
    tasks: TaskTracker,
    bodies: Arc<tokio::sync::Notify>,
    reporting: Arc<SpoolReporter>,
}

impl fmt::Debug for Spooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spooled")
            .field("queue", &self.queue)
            .field("spool", &self.spool)
            .finish_non_exhaustive()
    }
}

impl Spooled {
    /// Opens the spool's file and begins to forward what is in it.
    pub fn open(
        queue: Arc<dyn Upstream>,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let (lanes, inboxes) = Lanes::new();
        let lanes = Arc::new(lanes);
        let sending = Arc::clone(&lanes);
        let on_kept = Box::new(move |row, event, waiter| sending.send(row, event, waiter));
        let spool = Arc::new(File::open(
            &options.path,
            options.bytes,
            Arc::clone(&clock),
            on_kept,
        )?);
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        // Events that the queue refused may be accepted by now. Asked for before the lanes read.
        let retried = spool.retry_unsendable();
        tasks.spawn(async move {
            if let Err(error) = retried.await {
                tracing::error!(%error, "what is set aside in the spool is not tried again");
            }
        });
        let is_away = Arc::new(AtomicBool::new(false));
        let told = Arc::new(ForwardedHook::new());
        for (number, inbox) in inboxes.into_iter().enumerate() {
            let lane = Lane::new(
                number,
                Arc::clone(&lanes),
                inbox,
                &spool,
                &queue,
                &is_away,
                &told,
            );
            tasks.spawn(lane.run(closing.clone()));
        }
        let id = spool.id().to_owned();
        let path = options.path.clone();
        let reporting = SpoolReporter {
            id,
            path,
            place: spool.location(),
            queue: Arc::clone(&queue),
            clock: Arc::clone(&clock),
        };
        let reporting = Arc::new(reporting);
        tasks.spawn(Arc::clone(&reporting).run(closing.clone()));
        let confirming = PresenceCheck {
            spool: Arc::clone(&spool),
            queue: Arc::clone(&queue),
            // A clock that is set must not change how long an event was stored here.
            clock: spool.clock(),
            keep: options.keep,
        };
        tasks.spawn(confirm::run(confirming, closing.clone()));
        let bodies = Arc::new(tokio::sync::Notify::new());
        let overflow = Arc::new(OverflowHook::new());
        let forwarder = BodyForwarder {
            spool: Arc::clone(&spool),
            queue: Arc::clone(&queue),
            overflow: Arc::clone(&overflow),
        };
        tasks.spawn(forwarder.run(Arc::clone(&bodies), closing.clone()));
        // A damaged file still has events that were acknowledged: of the process before, or of
        // one before that which did not finish its salvage.
        for path in damaged_files(&options.path) {
            let spool = Arc::clone(&spool);
            let queue = Arc::clone(&queue);
            let clock = Arc::clone(&clock);
            let closing = closing.clone();
            tasks.spawn(async move {
                closing
                    .run_until_cancelled(salvage_whole(&path, &spool, &*queue, &*clock))
                    .await;
            });
        }
        Ok(Self {
            queue,
            spool,
            is_away,
            lanes,
            told,
            overflow,
            options,
            closing,
            tasks,
            bodies,
            reporting,
        })
    }

    /// The path of the earlier file, if it could not be trusted and was renamed.
    pub fn damaged_file(&self) -> Option<&PathBuf> {
        self.spool.damaged_file()
    }

    async fn store(&self, event: Event) -> Result<Receipt, QueueError> {
        let (waiter, acknowledged) = oneshot::channel();
        let is_late = self.is_away.load(Ordering::Relaxed) || self.lanes.is_overdue(&event);
        let waits = !is_late && self.queue.has_room();
        let kept = self.spool.keep(event.clone(), waits.then_some(waiter));
        // Only stored events are sent to the queue, so its receipt answers for both. Without a
        // receipt, also for an event that is known already or can't be stored, the spool decides.
        if waits {
            match timeout(self.options.wait_for_queue, acknowledged).await {
                Ok(Ok(receipt)) => return Ok(receipt),
                Ok(Err(_)) => {}
                Err(_) => self.lanes.note_overdue(&event),
            }
        }
        let mut kept = pin!(kept);
        match timeout(DISK_PATIENCE, kept.as_mut()).await {
            Ok(Ok(kept)) => receipt(&kept),
            // No room, a failing disk, a file that is gone: the queue may still store it.
            Ok(Err(_)) => self.publish_directly(&event).await,
            Err(_) => self.whoever_is_first(&event, kept).await,
        }
    }

    async fn publish_directly(&self, event: &Event) -> Result<Receipt, QueueError> {
        let receipt = self.queue.publish(event.clone()).await?;
        settled(&*self.queue, event, receipt).await
    }

    /// Asks the queue too, since the disk hangs, and answers with whichever stores the event
    /// first.
    async fn whoever_is_first(
        &self,
        event: &Event,
        kept: Pin<&mut impl Future<Output = Result<StoredRow, QueueError>>>,
    ) -> Result<Receipt, QueueError> {
        let directly = pin!(self.publish_directly(event));
        match select(kept, directly).await {
            Either::Left((Ok(kept), _)) => receipt(&kept),
            Either::Left((Err(_), directly)) => directly.await,
            Either::Right((Ok(receipt), _)) => Ok(receipt),
            Either::Right((Err(_), kept)) => kept.await.and_then(|kept| receipt(&kept)),
        }
    }
}

fn receipt(kept: &StoredRow) -> Result<Receipt, QueueError> {
    let position = Position::new(0, u64::try_from(kept.row).unwrap_or(0))?;
    Ok(Receipt {
        duplicate: kept.is_duplicate,
        epoch: EPOCH.to_owned(),
        position,
    })
}

impl Intake for Spooled {
    fn publish(&self, event: Event) -> BoxFuture<'_, Result<Receipt, QueueError>> {
        self.store(event).boxed()
    }

    /// Stores the body here first; it is forwarded later.
    fn quarantine(&self, body: Quarantined) -> BoxFuture<'_, Result<(), QueueError>> {
        async move {
            match self.spool.keep_body(body.clone()).await {
                Ok(()) => {
                    self.bodies.notify_one();
                    Ok(())
                }
                // No room, a failing disk, a file that is gone: the queue may still store it.
                Err(_) => self.queue.quarantine(body).await,
            }
        }
        .boxed()
    }

    /// Goes to the queue directly: a rejected webhook was not accepted, so it need not be safe
    /// here.
    fn capture_rejected(&self, webhook: RejectedWebhook) -> BoxFuture<'_, Result<(), QueueError>> {
        self.queue.capture_rejected(webhook)
    }

    /// Why an event can be made durable neither here nor in the queue.
    fn impediment(&self) -> Option<Impediment> {
        let spool = self.spool.impediment()?;
        let queue = self.queue.impediment()?;
        Some(format!("{spool}, and {queue}").into())
    }

    fn on_forwarded(&self, heard: OnForwarded) {
        let _ = self.told.set(heard);
    }

    fn on_quarantine_full(&self, overflow: Arc<dyn QuarantineOverflow>) {
        let _ = self.overflow.set(overflow);
        self.bodies.notify_one();
    }
}

impl Lifecycle for Spooled {
    /// Resolves when the queue fails. If only the spool fails, the process goes on with the
    /// queue.
    fn failed(&self) -> BoxFuture<'_, String> {
        self.queue.failed()
    }

    fn health(&self) -> BoxFuture<'_, QueueHealth> {
        let is_reachable = self.queue.has_room() && !self.is_away.load(Ordering::Relaxed);
        let path = self.options.path.clone();
        let place = self.spool.location();
        let looking = tokio::task::spawn_blocking(move || {
            let found = crate::store::spool_backlog(&path);
            found.ok().filter(|_| place.is_there())
        });
        async move {
            let health = self.queue.health().await;
            let found = looking.await.ok().flatten();
            let bytes = self.spool.bytes();
            let spool = found.map(|(unsent, oldest_unsent)| SpoolHealth {
                unsent,
                oldest_unsent,
                bytes,
            });
            QueueHealth {
                is_reachable,
                spool,
                ..health
            }
        }
        .boxed()
    }

    /// Closes the spool after its final report, and then the queue.
    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.closing.cancel();
            self.tasks.close();
            self.tasks.wait().await;
            self.spool.close().await;
            self.reporting.final_report().await;
            self.queue.close().await;
        }
        .boxed()
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}
