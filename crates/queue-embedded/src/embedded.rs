//! The queue in one SQLite file, as its callers use it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use event_model::{Clock, Event, EventId, FluentKey, Timestamp};
use futures::FutureExt;
use futures::future::BoxFuture;
use queue::same_id::{Claim, GrantedClaim};
use queue::{
    Consumer, DeadLetters, FactAccess, FactStore, History, Horizon, Impediment, Intake, Lifecycle,
    Pause, Position, Presence, Quarantine, Quarantined, QueueError, QueueHealth, Receipt,
    ReconciledPair, RejectedStore, RejectedWebhook, ReplayOutcome, Route, RouteState, Source,
    SpoolWatermark, StatusSource, Stores, StoresHealth, Upstream, facts,
};
use rusqlite::{Connection, TransactionBehavior};
use sqlite_file::rows::nanos;
use sqlite_file::{
    Failure, FileLocation, FileStatus, HeldFile, Messages, OpenError, PanicGuard, Writer,
    connect_to_read, lock, meta, quarantine,
};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::file::schema::{QUEUE, last_position};
use crate::options::Options;
use crate::reading::consumer::EmbeddedConsumer;
use crate::reading::route::RouteBuffer;
use crate::reading::tail_reader::TailReader;
use crate::shared::Shared;
use crate::stores::SqliteStores;
use crate::stores::backup::begin_serving;
use crate::stores::connections::Served;
use crate::stores::quarantined::GroupedQuarantine;
use crate::stores::rejected::GroupedRejected;
use crate::writing::housekeeping::Housekeeping;
use crate::writing::publish::Publish;
use crate::writing::queue_time::QueueTime;
use crate::writing::recovery::take_over;
use crate::writing::same_id;
use crate::writing::subscribe::Subscribe;
use crate::writing::writer::QueueOwner;

/// Wait before a route is joined again, while the disk is full.
const JOIN_AGAIN: Duration = Duration::from_millis(500);

/// The queue in one SQLite file, served by this process.
#[derive(Debug)]
pub struct Embedded {
    pub(crate) shared: Arc<Shared>,
    pub(crate) beside: SqliteStores,
    quarantine: GroupedQuarantine,
    refused: GroupedRejected,
    threads: Mutex<Vec<JoinHandle<()>>>,
    set_aside: Option<PathBuf>,
    /// Last, since fields are dropped in order: it must outlive every connection.
    _held: HeldFile,
}

impl Embedded {
    /// Opens the file and begins to serve it.
    ///
    /// A file that is damaged, or whose disk failed before, is quarantined whole and a new one
    /// created: see [`Embedded::damaged_file`].
    pub fn open(options: Options, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let opened = sqlite_file::open(&options.path, &QUEUE, &*clock)?;
        let path = opened.path.clone();
        let wrap = |source| OpenError::Sqlite {
            path: path.clone(),
            source,
        };
        let limit = options.retention.bytes;
        let sql = opened.sql;
        let place = Arc::clone(opened.held.location());
        let serving = serve(sql, Arc::clone(&place), &path, options, Arc::clone(&clock));
        let OpenThreads {
            shared,
            time,
            threads,
        } = serving.map_err(wrap)?;
        let beside = SqliteStores::open(&path, None)?.serving(Served {
            status: Arc::clone(shared.status()),
            place,
            clock,
            time,
        });
        Ok(Self {
            quarantine: GroupedQuarantine::new(beside.clone(), Arc::clone(&shared), limit),
            refused: GroupedRejected::new(beside.clone(), Arc::clone(&shared), limit),
            beside,
            shared,
            threads: Mutex::new(threads),
            set_aside: opened.set_aside,
            _held: opened.held,
        })
    }

    /// The path of the earlier file, if it could not be trusted and was renamed.
    pub fn damaged_file(&self) -> Option<&PathBuf> {
        self.set_aside.as_ref()
    }

    /// The stores of the queue.
    pub fn stores(&self) -> &dyn Stores {
        self
    }

    async fn answer<T>(answer: oneshot::Receiver<Result<T, QueueError>>) -> Result<T, QueueError> {
        answer.await.unwrap_or(Err(QueueError::Closed))
    }

    /// Joins a route. While the disk is full, this waits for room: a process that starts then goes
    /// on by itself.
    async fn join(&self, route: Route) -> Result<Arc<RouteBuffer>, QueueError> {
        loop {
            let (job, answer) = Subscribe::new(route.clone(), Arc::clone(&self.shared));
            self.shared.submit(job);
            match Self::answer(answer).await {
                Err(QueueError::Full) if !self.shared.is_closing() => sleep(JOIN_AGAIN).await,
                joined => return joined,
            }
        }
    }

    fn stop(&self) -> oneshot::Receiver<()> {
        self.shared.closing.store(true, Ordering::Release);
        for route in lock(&self.shared.routes).iter() {
            route.filled.notify_waiters();
        }
        self.shared.wake_tail_reader();
        self.shared.inbox.close()
    }
}

/// Log messages about the queue's file.
pub(crate) const MESSAGES: Messages = Messages {
    full: "the disk of the queue file is full: nothing can be stored until there is room",
    gone: "the queue file was removed, renamed or replaced while it was served: nothing is accepted until it is back; what it holds is lost when this process ends, and can be copied until then from /proc/<process>/fd",
    refused: "the queue file can't be written to now",
    busy: "another process held the queue file for too long",
    broken: "the queue file can't be trusted any more; it will be set aside at the next start",
    panicked: "a thread of the queue panicked: this process must be started anew",
    log_removed: "the log beside the queue file (-wal) was removed while it was served: what it held was written to the file, and nothing is accepted until this process is started anew",
    again: "the queue file can be written to again",
    long_log: "the queue file's log grows, since somebody reads the file for long: another program that has it open, or a backup",
};

/// The threads of an open queue, and what they share.
struct OpenThreads {
    shared: Arc<Shared>,
    time: QueueTime,
    threads: Vec<JoinHandle<()>>,
}

/// Recovers what the last process left, and starts both threads.
fn serve(
    mut sql: Connection,
    place: Arc<FileLocation>,
    path: &Path,
    options: Options,
    clock: Arc<dyn Clock>,
) -> rusqlite::Result<OpenThreads> {
    let (inbox, jobs) = sqlite_file::inbox(Arc::new(FileStatus::new(path, &MESSAGES)));
    begin_serving(&mut sql, nanos(clock.now()))?;
    let epoch = meta(&sql, "epoch")?.unwrap_or_default();
    let last = last_position(&sql)?;
    let shared = Arc::new(Shared::new(epoch, last, inbox, clock));
    let now = shared.now();
    let time = QueueTime::go_on(&sql, now)?;
    let has_taken_over = match take_over_now(&mut sql, time, now) {
        Ok(()) => true,
        Err(error) => match Failure::of_write(&error, path) {
            // The writer goes on trying, and may make room: what is settled leaves some.
            full @ Failure::Full => {
                shared.status().note(&full);
                false
            }
            _ => return Err(error),
        },
    };
    shared
        .quarantined
        .store(quarantine::bytes(&sql)?, Ordering::Relaxed);
    let owner = QueueOwner::new(
        last,
        Arc::clone(&shared),
        Housekeeping::new(options, time),
        time,
        has_taken_over,
    );
    let tail_reader = TailReader {
        sql: connect_to_read(path)?,
        shared: Arc::clone(&shared),
    };
    let writer = started(Writer::start("queue-writer", sql, place, jobs, owner));
    let guard = PanicGuard(Arc::clone(shared.status()));
    let tail_reader = started(
        Builder::new()
            .name("queue-reader".to_owned())
            .spawn(move || {
                let _guard = guard;
                tail_reader.run();
            }),
    );
    shared.set_tail_reader(tail_reader.thread().clone());
    Ok(OpenThreads {
        shared,
        time,
        threads: vec![writer, tail_reader],
    })
}

fn take_over_now(sql: &mut Connection, time: QueueTime, now: i64) -> rusqlite::Result<()> {
    // A command may be writing: whoever has read first does not wait for it.
    let transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
    take_over(&transaction, time, now)?;
    transaction.commit()
}

#[expect(
    clippy::expect_used,
    reason = "without its two threads there is no queue, and no process to go on"
)]
fn started(thread: io::Result<JoinHandle<()>>) -> JoinHandle<()> {
    thread.expect("the system can start a thread")
}

impl Intake for Embedded {
    fn publish(&self, event: Event) -> BoxFuture<'_, Result<Receipt, QueueError>> {
        match Publish::new(event, Arc::clone(&self.shared)) {
            Ok((job, answer)) => {
                self.shared.submit(job);
                Self::answer(answer).boxed()
            }
            Err(error) => futures::future::ready(Err(error)).boxed(),
        }
    }

    fn quarantine(&self, body: Quarantined) -> BoxFuture<'_, Result<(), QueueError>> {
        self.quarantine.store(body)
    }

    fn capture_rejected(&self, webhook: RejectedWebhook) -> BoxFuture<'_, Result<(), QueueError>> {
        self.refused.capture(webhook)
    }

    fn impediment(&self) -> Option<Impediment> {
        let is_full = self.shared.full.load(Ordering::Relaxed);
        let full = || Impediment::from("the queue is full (`queue.retention.bytes`)");
        is_full
            .then(full)
            .or_else(|| self.shared.status().impediment("the queue's file"))
    }
}

impl Upstream for Embedded {
    fn presence(
        &self,
        position: Position,
        id: EventId,
    ) -> BoxFuture<'_, Result<Presence, QueueError>> {
        self.beside.holds(position, id)
    }

    /// Publishes the event as usual: this queue has not lost events whose ids it knows.
    fn republish(&self, event: Event) -> BoxFuture<'_, Result<Receipt, QueueError>> {
        self.publish(event)
    }

    fn horizon(&self) -> BoxFuture<'_, Result<Horizon, QueueError>> {
        let last = Position::new(0, self.shared.last.load(Ordering::Acquire));
        let epoch = self.shared.epoch.clone();
        futures::future::ready(
            last.map(|last| Horizon { epoch, last })
                .map_err(QueueError::from),
        )
        .boxed()
    }

    fn note_spool<'a>(
        &'a self,
        id: &'a str,
        mark: &'a SpoolWatermark,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        facts::set_spool(&self.beside, id, mark).boxed()
    }

    fn forget_spool<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        facts::forget_spool(&self.beside, id).boxed()
    }
}

impl Source for Embedded {
    fn subscribe(&self, route: Route) -> BoxFuture<'_, Result<Box<dyn Consumer>, QueueError>> {
        async move {
            let route = self.join(route).await?;
            let consumer = EmbeddedConsumer {
                route,
                shared: Arc::clone(&self.shared),
            };
            Ok(Box::new(consumer) as Box<dyn Consumer>)
        }
        .boxed()
    }

    /// With one file, settling is a write like any other.
    fn probe(&self) -> BoxFuture<'_, Result<(), QueueError>> {
        let probed = self.impediment().map_or(Ok(()), |why| {
            Err(QueueError::unavailable("writing to the queue", &*why))
        });
        futures::future::ready(probed).boxed()
    }

    fn show_status(&self, look: StatusSource) {
        *lock(&self.shared.look) = Some(look);
    }

    fn reconciled_duplicate<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
    ) -> BoxFuture<'a, Result<Option<ReconciledPair>, QueueError>> {
        facts::reconciled_pair(&self.beside, key, route).boxed()
    }

    fn note_delivered<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        facts::set_delivered(&self.beside, key, route, id).boxed()
    }

    fn same_id_delivered<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
    ) -> BoxFuture<'a, Result<Option<EventId>, QueueError>> {
        same_id::find_delivered(&self.shared, (key, route)).boxed()
    }

    fn claim_same_id<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
        now_until: (Timestamp, Timestamp),
    ) -> BoxFuture<'a, Result<Claim, QueueError>> {
        same_id::claim(&self.shared, (key, route), id, now_until).boxed()
    }

    fn release_same_id<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
        granted: GrantedClaim,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        same_id::release(&self.shared, (key, route), id, granted).boxed()
    }

    fn note_same_id_delivered<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        same_id::note_delivered(&self.shared, (key, route), id).boxed()
    }
}

impl Lifecycle for Embedded {
    fn failed(&self) -> BoxFuture<'_, String> {
        let mut failed = self.shared.status().watch_failure();
        async move {
            let why = failed
                .wait_for(Option::is_some)
                .await
                .map(|why| why.clone());
            match why {
                Ok(why) => why.unwrap_or_default(),
                Err(_) => futures::future::pending().await,
            }
        }
        .boxed()
    }

    fn health(&self) -> BoxFuture<'_, QueueHealth> {
        let known_for = self.shared.ids_known_for.load(Ordering::Relaxed);
        let health = QueueHealth {
            is_reachable: self.has_room(),
            ids_known_for: Some(known_for).filter(|seconds| *seconds != u64::MAX),
            ..QueueHealth::default()
        };
        futures::future::ready(health).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let closed = self.stop();
        let threads = std::mem::take(&mut *lock(&self.threads));
        async move {
            let _ = closed.await;
            let _ = tokio::task::spawn_blocking(|| {
                threads.into_iter().for_each(|thread| drop(thread.join()))
            })
            .await;
        }
        .boxed()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // For a queue that was not closed: lets the threads end. Deliveries in flight stay so.
        drop(self.stop());
    }
}

impl FactAccess for Embedded {
    fn facts(&self) -> &dyn FactStore {
        &self.beside
    }
}

impl Stores for Embedded {
    fn dead_letters(&self) -> &dyn DeadLetters {
        &self.beside
    }

    fn quarantine(&self) -> &dyn Quarantine {
        &self.quarantine
    }

    fn history(&self) -> &dyn History {
        &self.beside
    }

    fn health(&self) -> BoxFuture<'_, Result<StoresHealth, QueueError>> {
        self.beside.health()
    }

    fn publish_if_new(&self, event: Event) -> BoxFuture<'_, Result<bool, QueueError>> {
        let published = self.publish(event);
        async move { Ok(published.await?.duplicate) }.boxed()
    }

    fn routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>> {
        self.beside.routes()
    }

    fn forget<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        if self.shared.route(route).is_some() {
            return futures::future::ready(Err(QueueError::InUse(format!("route {route}"))))
                .boxed();
        }
        self.beside.forget(route)
    }

    fn retry_now<'a>(
        &'a self,
        route: &'a str,
        event: EventId,
    ) -> BoxFuture<'a, Result<u64, QueueError>> {
        self.beside.retry_now(route, event)
    }

    fn close_breakers<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        self.beside.close_breakers(route)
    }

    fn set_paused<'a>(
        &'a self,
        route: &'a str,
        pause: Option<&'a Pause>,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        self.beside.set_paused(route, pause)
    }

    fn refused(&self) -> &dyn RejectedStore {
        &self.refused
    }

    fn replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        self.beside.replay(route, events, again)
    }

    fn preview_replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        self.beside.preview_replay(route, events, again)
    }

    fn number_replay<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<u32, QueueError>> {
        self.beside.number_replay(route)
    }

    fn replay_as<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
        number: u32,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>> {
        self.beside.replay_as(route, events, again, number)
    }
}
