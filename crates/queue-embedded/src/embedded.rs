use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{Builder, JoinHandle};

use event_model::{Clock, Event, EventId, FluentKey};
use futures::FutureExt;
use futures::future::BoxFuture;
use queue::{
    Consumer, DeadLetters, HasMarks, History, Horizon, Intake, Lifecycle, Look, Marks, Pause, Position,
    Presence, Quarantine, Quarantined, QueueError, QueueHealth, Receipt, RefusedHold, RefusedWebhook,
    Replayed, Route, RouteState, Source, SpoolMark, Stores, StoresHealth, Twin, Upstream, marks,
};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::beside::Beside;
use crate::beside::quarantined::{KeepInGroups, quarantined_bytes};
use crate::beside::refused::HoldInGroups;
use crate::file::door::{self, OpenError};
use crate::file::held::{HeldFile, Place};
use crate::file::rows::nanos;
use crate::file::schema::{CLOCK, COMPLETE_SINCE, WORKING, connect_to_read, last_position, meta, set_meta};
use crate::options::Options;
use crate::reading::consumer::EmbeddedConsumer;
use crate::reading::feeder::Feeder;
use crate::shared::{Shared, lock};
use crate::writing::housekeeping::Housekeeping;
use crate::writing::publish::Publish;
use crate::writing::queue_time::QueueTime;
use crate::writing::set_back::{LastLook, follow_since};
use crate::writing::subscribe::Subscribe;
use crate::writing::writer::{Message, Writer};

/// The queue in one SQLite file, served by this process.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    beside: Beside,
    quarantine: KeepInGroups,
    refused: HoldInGroups,
    threads: Mutex<Vec<JoinHandle<()>>>,
    set_aside: Option<PathBuf>,
    /// After every connection.
    _held: HeldFile,
}

impl Embedded {
    /// Opens the file and begins to serve it.
    ///
    /// A damaged file, or one whose disk failed before, is set aside whole and
    /// a new one begun: see [`Embedded::set_aside`].
    pub fn open(options: Options, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let opened = door::open(&options.path, &door::QUEUE, &*clock)?;
        let (path, held) = (opened.path, opened.held);
        let wrap = |source| OpenError::Sqlite { path: path.clone(), source };
        let (now, (inbox, jobs)) = (nanos(clock.now()), channel());
        let mut sql = opened.sql;
        let epoch = meta(&sql, "epoch").map_err(wrap)?.unwrap_or_default();
        let last = last_position(&sql).map_err(wrap)?;
        let shared = Arc::new(Shared::new(path.clone(), epoch, last, inbox, clock));
        door::recover(&mut sql, &shared).map_err(wrap)?;
        let written = meta(&sql, CLOCK).map_err(wrap)?.unwrap_or(i64::MIN);
        follow_since(&sql, &shared, written).map_err(wrap)?;
        // What the process before said of its routes is over.
        set_meta(&sql, WORKING, "[]").map_err(wrap)?;
        // Nobody knows what an older version removed, or what came before the file.
        if meta::<i64>(&sql, COMPLETE_SINCE).map_err(wrap)?.is_none() {
            set_meta(&sql, COMPLETE_SINCE, now).map_err(wrap)?;
        }
        let limit = options.retention.bytes;
        let threads = start(sql, jobs, last, &shared, options, held.place()).map_err(wrap)?;
        let beside = Beside::open(&path, None).map_err(wrap)?;
        Ok(Self {
            quarantine: KeepInGroups::new(beside.clone(), Arc::clone(&shared)),
            refused: HoldInGroups::new(beside.clone(), Arc::clone(&shared), limit),
            beside,
            shared,
            threads: Mutex::new(threads),
            set_aside: opened.set_aside,
            _held: held,
        })
    }

    /// Where the file went that was here before and could not be trusted.
    pub fn set_aside(&self) -> Option<&PathBuf> {
        self.set_aside.as_ref()
    }

    /// What is kept beside the events.
    pub fn stores(&self) -> &dyn Stores {
        self
    }

    async fn answer<T>(answer: oneshot::Receiver<Result<T, QueueError>>) -> Result<T, QueueError> {
        answer.await.unwrap_or(Err(QueueError::Closed))
    }

    fn stop(&self) -> oneshot::Receiver<()> {
        let (reply, closed) = oneshot::channel();
        self.shared.closing.store(true, Ordering::Release);
        for route in lock(&self.shared.routes).iter() {
            route.filled.notify_waiters();
        }
        self.shared.wake_feeder();
        self.shared.send(Message::Close(reply));
        closed
    }
}

fn start(
    mut sql: Connection,
    jobs: Receiver<Message>,
    last: u64,
    shared: &Arc<Shared>,
    options: Options,
    place: &Arc<Place>,
) -> rusqlite::Result<Vec<JoinHandle<()>>> {
    let reading = connect_to_read(&shared.path)?;
    let feeder = Feeder { sql: reading, shared: Arc::clone(shared) };
    // No version: what others wrote since the file was opened is looked at first.
    let seen_version = -1;
    let time = QueueTime::go_on(&sql, shared.now())?;
    let housekeeping = Housekeeping::new(options, time);
    housekeeping.follow_log(&mut sql)?;
    shared.quarantined.store(quarantined_bytes(&sql)?, Ordering::Relaxed);
    let next_probe = std::time::Instant::now();
    let (shared_too, place) = (Arc::clone(shared), Arc::clone(place));
    let writer = Writer {
        sql,
        last,
        seen_version,
        next_probe,
        noted: i64::MIN,
        looked: LastLook::now(shared.now()),
        shared: shared_too,
        housekeeping,
        time,
        place,
    };
    let (watched, watched_too) = (Watched(Arc::clone(shared)), Watched(Arc::clone(shared)));
    let writer = thread("queue-writer", move || {
        let _watched = watched;
        writer.run(&jobs);
    });
    let feeder = thread("queue-reader", move || {
        let _watched = watched_too;
        feeder.run();
    });
    shared.set_feeder(feeder.thread().clone());
    Ok(vec![writer, feeder])
}

/// Tells everybody if a thread of the queue panics: they would wait for ever.
struct Watched(Arc<Shared>);

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // It says nothing against the file: what was not committed is not there.
            if self.0.stop_serving("a thread of the queue panicked") {
                tracing::error!("a thread of the queue panicked: this process must be started anew");
            }
        }
    }
}

#[expect(clippy::expect_used, reason = "without its two threads there is no queue, and no process to go on")]
fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    Builder::new().name(name.to_owned()).spawn(run).expect("the system can start a thread")
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
        self.quarantine.keep(body)
    }

    fn capture_rejected(&self, webhook: RefusedWebhook) -> BoxFuture<'_, Result<(), QueueError>> {
        self.refused.hold(webhook)
    }

    fn has_room(&self) -> bool {
        let full = self.shared.full.load(Ordering::Relaxed) || self.shared.is_impeded.load(Ordering::Acquire);
        !full && !self.shared.is_hung() && self.shared.failure().is_none()
    }
}

impl Upstream for Embedded {
    fn presence(&self, position: Position, id: EventId) -> BoxFuture<'_, Result<Presence, QueueError>> {
        self.beside.holds(position, id)
    }

    /// What this queue knows, it has.
    fn republish(&self, event: Event) -> BoxFuture<'_, Result<Receipt, QueueError>> {
        self.publish(event)
    }

    fn horizon(&self) -> BoxFuture<'_, Result<Horizon, QueueError>> {
        let last = Position::new(0, self.shared.last.load(Ordering::Acquire));
        let epoch = self.shared.epoch.clone();
        futures::future::ready(last.map(|last| Horizon { epoch, last }).map_err(QueueError::from)).boxed()
    }

    fn note_spool<'a>(&'a self, id: &'a str, mark: &'a SpoolMark) -> BoxFuture<'a, Result<(), QueueError>> {
        marks::set_spool(&self.beside, id, mark).boxed()
    }

    fn forget_spool<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        marks::forget_spool(&self.beside, id).boxed()
    }
}

impl Source for Embedded {
    fn subscribe(&self, route: Route) -> BoxFuture<'_, Result<Box<dyn Consumer>, QueueError>> {
        let (job, answer) = Subscribe::new(route, Arc::clone(&self.shared));
        self.shared.submit(job);
        async move {
            let route = Self::answer(answer).await?;
            let consumer = EmbeddedConsumer { route, shared: Arc::clone(&self.shared) };
            Ok(Box::new(consumer) as Box<dyn Consumer>)
        }
        .boxed()
    }

    /// One file is all there is: settling is a write like any other.
    fn probe(&self) -> BoxFuture<'_, Result<(), QueueError>> {
        let probed = if self.has_room() { Ok(()) } else { Err(QueueError::Full) };
        futures::future::ready(probed).boxed()
    }

    fn show_status(&self, look: Look) {
        *lock(&self.shared.look) = Some(look);
    }

    fn reconciled_duplicate<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
    ) -> BoxFuture<'a, Result<Option<Twin>, QueueError>> {
        marks::twin(&self.beside, key, route).boxed()
    }

    fn note_delivered<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        marks::set_delivered(&self.beside, key, route, id).boxed()
    }
}

impl Lifecycle for Embedded {
    fn failed(&self) -> BoxFuture<'_, String> {
        let mut failed = self.shared.watch_failure();
        async move {
            let why = failed.wait_for(Option::is_some).await.map(|why| why.clone());
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
            let _ =
                tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| drop(thread.join())))
                    .await;
        }
        .boxed()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Where nobody closed: let the threads end. What is in flight stays so.
        drop(self.stop());
    }
}

impl HasMarks for Embedded {
    fn marks(&self) -> &dyn Marks {
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

    fn admit(&self, event: Event) -> BoxFuture<'_, Result<bool, QueueError>> {
        let published = self.publish(event);
        async move { Ok(published.await?.duplicate) }.boxed()
    }

    fn routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>> {
        self.beside.routes()
    }

    fn forget<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        if self.shared.route(route).is_some() {
            let why = "it is in use: take it out of the settings first";
            return futures::future::ready(Err(QueueError::unavailable("forgetting the route", why))).boxed();
        }
        self.beside.forget(route)
    }

    fn retry_now<'a>(&'a self, route: &'a str, event: EventId) -> BoxFuture<'a, Result<u64, QueueError>> {
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

    fn refused(&self) -> &dyn RefusedHold {
        &self.refused
    }

    fn replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<Replayed>, QueueError>> {
        self.beside.replay(route, events, again)
    }
}
