use std::fmt;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use event_model::{Clock, Event, EventId, SteadyClock};
use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use queue::{
    Consumer, DeadLetters, EventQueue, History, Holding, Horizon, Look, Marks, OnForwarded, Pause, Position,
    Published, Quarantine, Quarantined, QueueError, Receipt, RefusedHold, Replayed, Route, RouteState,
    SpoolStanding, Standing, Stores, StoresHealth,
};
use queue_embedded::{Kept, Spool};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use queue_embedded::OpenError;

use crate::aside::files_set_aside;
use crate::confirm::{self, Confirming};
use crate::forward::{Lane, Lanes, Told, Waiter, forward_bodies, settled};
use crate::options::Options;
use crate::report::{Reporting, take_over_whole};

/// How long to wait for this machine's disk. Longer than a write in a group takes
/// on one that is busy, and far shorter than a sender waits.
const DISK_PATIENCE: Duration = Duration::from_secs(1);

/// How positions in a spool are told from a queue's.
const EPOCH: &str = "spool";

/// The spool's file, with whoever waits for the queue's word on an event.
pub(crate) type File = Spool<Option<Waiter>>;

/// A queue with a spool before it.
pub struct Spooled {
    queue: Arc<dyn EventQueue>,
    spool: Arc<File>,
    /// The queue is known to be away: nobody waits for it.
    is_away: Arc<AtomicBool>,
    lanes: Arc<Lanes>,
    told: Arc<Told>,
    options: Options,
    closing: CancellationToken,
    tasks: TaskTracker,
    bodies: Arc<tokio::sync::Notify>,
    reporting: Arc<Reporting>,
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
    /// Opens the spool's file and begins to forward what it holds.
    pub fn open(
        queue: Arc<dyn EventQueue>,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let (lanes, inboxes) = Lanes::new();
        let lanes = Arc::new(lanes);
        let sending = Arc::clone(&lanes);
        let on_kept = Box::new(move |row, event, waiter| sending.send(row, event, waiter));
        // How long something was kept here is not for whoever sets the machine's clock to say.
        let steady: Arc<dyn Clock> = Arc::new(SteadyClock::beginning_with(&*clock));
        let spool = Arc::new(File::open(&options.path, options.bytes, Arc::clone(&steady), on_kept)?);
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        // What the queue would not take may fit by now. Before the lanes read.
        let retried = spool.retry_aside();
        tasks.spawn(async move {
            if let Err(error) = retried.await {
                tracing::error!(%error, "what is set aside in the spool is not tried again");
            }
        });
        let (is_away, told) = (Arc::new(AtomicBool::new(false)), Arc::new(Told::new()));
        for (number, inbox) in inboxes.into_iter().enumerate() {
            let lane = Lane::new(number, Arc::clone(&lanes), inbox, &spool, &queue, &is_away, &told);
            tasks.spawn(lane.run(closing.clone()));
        }
        let (id, path) = (spool.id().to_owned(), options.path.clone());
        let reporting = Reporting { id, path, queue: Arc::clone(&queue), clock: Arc::clone(&clock) };
        let reporting = Arc::new(reporting);
        tasks.spawn(Arc::clone(&reporting).run(closing.clone()));
        let confirming = Confirming {
            spool: Arc::clone(&spool),
            queue: Arc::clone(&queue),
            clock: steady,
            keep: options.keep,
        };
        tasks.spawn(confirm::run(confirming, closing.clone()));
        let bodies = Arc::new(tokio::sync::Notify::new());
        tasks.spawn(forward_bodies(
            Arc::clone(&spool),
            Arc::clone(&queue),
            Arc::clone(&bodies),
            closing.clone(),
        ));
        // What was set aside still holds events that were answered for: by the
        // process before, or by one before that which did not come to it.
        for path in files_set_aside(&options.path) {
            let (spool, queue) = (Arc::clone(&spool), Arc::clone(&queue));
            let (clock, closing) = (Arc::clone(&clock), closing.clone());
            tasks.spawn(async move {
                closing.run_until_cancelled(take_over_whole(&path, &spool, &*queue, &*clock)).await;
            });
        }
        Ok(Self { queue, spool, is_away, lanes, told, options, closing, tasks, bodies, reporting })
    }

    /// Where the file went that was here before and could not be trusted.
    pub fn set_aside(&self) -> Option<&PathBuf> {
        self.spool.set_aside()
    }

    async fn store(&self, event: Event) -> Result<Receipt, QueueError> {
        let (waiter, acknowledged) = oneshot::channel();
        let is_late = self.is_away.load(Ordering::Relaxed) || self.lanes.is_overdue(&event);
        let waits = !is_late && self.queue.has_room();
        let kept = self.spool.keep(event.clone(), waits.then_some(waiter));
        // Only what was kept is sent to the queue, so its word says both. Without
        // it, also of what is known already or can't be kept, the spool decides.
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
            // No room, a disk that fails, a file that is gone: the queue may do better.
            Ok(Err(_)) => self.publish_directly(&event).await,
            Err(_) => self.whoever_is_first(&event, kept).await,
        }
    }

    async fn publish_directly(&self, event: &Event) -> Result<Receipt, QueueError> {
        let receipt = self.queue.publish(event.clone()).await?;
        settled(&*self.queue, event, receipt).await
    }

    /// The disk hangs: the queue is asked too, and whichever has the event first
    /// answers for it.
    async fn whoever_is_first(
        &self,
        event: &Event,
        kept: Pin<&mut impl Future<Output = Result<Kept, QueueError>>>,
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

fn receipt(kept: &Kept) -> Result<Receipt, QueueError> {
    let position = Position::new(0, u64::try_from(kept.row).unwrap_or(0))?;
    Ok(Receipt { duplicate: kept.is_duplicate, epoch: EPOCH.to_owned(), position })
}

impl EventQueue for Spooled {
    fn publish(&self, event: Event) -> BoxFuture<'_, Result<Receipt, QueueError>> {
        self.store(event).boxed()
    }

    fn holds(&self, position: Position, id: EventId) -> BoxFuture<'_, Result<Holding, QueueError>> {
        self.queue.holds(position, id)
    }

    fn publish_all<'a>(&'a self, events: &'a [Event]) -> BoxFuture<'a, Published> {
        self.queue.publish_all(events)
    }

    fn publish_again(&self, event: Event) -> BoxFuture<'_, Result<Receipt, QueueError>> {
        self.queue.publish_again(event)
    }

    fn announce<'a>(&'a self, routes: &'a [Route]) -> BoxFuture<'a, Result<(), QueueError>> {
        self.queue.announce(routes)
    }

    fn subscribe(&self, route: Route) -> BoxFuture<'_, Result<Box<dyn Consumer>, QueueError>> {
        self.queue.subscribe(route)
    }

    fn horizon(&self) -> BoxFuture<'_, Result<Horizon, QueueError>> {
        self.queue.horizon()
    }

    /// Ready is who can make an event durable now, here or there.
    fn has_room(&self) -> bool {
        self.spool.has_room() || self.queue.has_room()
    }

    fn tell_of_forwarded(&self, told: OnForwarded) {
        let _ = self.told.set(told);
    }

    fn standing(&self) -> BoxFuture<'_, Standing> {
        let is_reachable = self.queue.has_room() && !self.is_away.load(Ordering::Relaxed);
        let path = self.options.path.clone();
        let looking = tokio::task::spawn_blocking(move || queue_embedded::spool_backlog(&path));
        async move {
            let standing = self.queue.standing().await;
            let found = looking.await.ok().and_then(Result::ok);
            let bytes = self.spool.bytes();
            let spool = found.map(|(unsent, oldest_unsent)| SpoolStanding { unsent, oldest_unsent, bytes });
            Standing { is_reachable, spool, ..standing }
        }
        .boxed()
    }

    fn show(&self, look: Look) {
        self.queue.show(look);
    }

    fn stores(&self) -> &dyn Stores {
        self
    }

    /// A spool that fails leaves the queue, so the process goes on.
    fn failed(&self) -> BoxFuture<'_, String> {
        self.queue.failed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.closing.cancel();
            self.tasks.close();
            self.tasks.wait().await;
            self.spool.close().await;
            self.reporting.last_word().await;
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

impl Stores for Spooled {
    fn dead_letters(&self) -> &dyn DeadLetters {
        self.queue.stores().dead_letters()
    }

    fn quarantine(&self) -> &dyn Quarantine {
        self
    }

    fn history(&self) -> &dyn History {
        self.queue.stores().history()
    }

    fn marks(&self) -> &dyn Marks {
        self.queue.stores().marks()
    }

    fn health(&self) -> BoxFuture<'_, Result<StoresHealth, QueueError>> {
        self.queue.stores().health()
    }

    fn admit(&self, event: Event) -> BoxFuture<'_, Result<bool, QueueError>> {
        self.queue.stores().admit(event)
    }

    fn routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>> {
        self.queue.stores().routes()
    }

    fn recent_routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>> {
        self.queue.stores().recent_routes()
    }

    fn forget<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        self.queue.stores().forget(route)
    }

    fn retry_now<'a>(&'a self, route: &'a str, event: EventId) -> BoxFuture<'a, Result<u64, QueueError>> {
        self.queue.stores().retry_now(route, event)
    }

    fn close_breakers<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        self.queue.stores().close_breakers(route)
    }

    fn set_paused<'a>(
        &'a self,
        route: &'a str,
        pause: Option<&'a Pause>,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        self.queue.stores().set_paused(route, pause)
    }

    fn refused(&self) -> &dyn RefusedHold {
        self.queue.stores().refused()
    }

    fn replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<Replayed>, QueueError>> {
        self.queue.stores().replay(route, events, again)
    }
}

/// Bodies are kept here first, and forwarded; the rest is the queue's.
impl Quarantine for Spooled {
    fn keep(&self, body: Quarantined) -> BoxFuture<'_, Result<(), QueueError>> {
        async move {
            match self.spool.keep_body(body.clone()).await {
                Ok(()) => {
                    self.bodies.notify_one();
                    Ok(())
                }
                // No room, a disk that fails, a file that is gone: the queue may do better.
                Err(_) => self.queue.stores().quarantine().keep(body).await,
            }
        }
        .boxed()
    }

    fn list(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Quarantined>, QueueError>> {
        self.queue.stores().quarantine().list(after, limit)
    }

    fn get(&self, id: u64) -> BoxFuture<'_, Result<Quarantined, QueueError>> {
        self.queue.stores().quarantine().get(id)
    }

    fn release(&self, id: u64, event: Event) -> BoxFuture<'_, Result<(), QueueError>> {
        self.queue.stores().quarantine().release(id, event)
    }

    fn discard(&self, id: u64) -> BoxFuture<'_, Result<(), QueueError>> {
        self.queue.stores().quarantine().discard(id)
    }
}
