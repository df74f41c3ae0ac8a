//! [`JetStream`]: the queue's roles on a cluster of NATS servers.

use std::slice;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use event_model::{Clock, Event, EventId, FluentKey, Timestamp};
use futures::FutureExt;
use futures::future::BoxFuture;
use queue::same_id::{self, Claim, GrantedClaim};
use queue::{
    Consumer, Horizon, Impediment, Intake, Lifecycle, Position, Presence, PublishResults,
    Quarantine, Quarantined, QueueError, QueueHealth, Receipt, ReconciledPair, RejectedStore,
    RejectedWebhook, Route, Source, SpoolWatermark, StatusSource, Stores, Upstream, facts,
};
use tokio::sync::{OnceCell, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempts::Attempts;
use crate::connect::{REQUEST, connect, connected};
use crate::consuming::{
    ByteBudget, Conflicts, Fetcher, InFlightWriter, KEPT_TOGETHER, NatsConsumer, ProbeSchedule,
    RouteBytes, RouteConsumer, announce_together, ensure_consumers, probe, undisturbed,
};
use crate::options::Options;
use crate::publishing::Publisher;
use crate::retention::Retention;
use crate::room::StreamRoom;
use crate::servers_clock::shifted;
use crate::shared::Shared;
use crate::stores::JetStreamStores;
use crate::stream_monitor::StreamMonitor;
use crate::streams::{DEAD, RETRIES};
use crate::verification::Verification;
use crate::{cluster, gap_notes, retention, route_status};

/// Longest wait for the servers, for work that can't begin without them.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

const CHECKING: &str = "checking the cluster";

/// Longest time for closing: deliveries that were not given back by then come again when their
/// leases end.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// The queue on a cluster of NATS servers.
#[derive(Debug)]
pub struct JetStream {
    shared: Arc<Shared>,
    beside: JetStreamStores,
    stores: Arc<dyn Stores>,
    options: Options,
    is_checked: OnceCell<()>,
}

impl JetStream {
    /// Begins to connect, and returns at once: the servers may be away, and a gateway with a
    /// spool works without them.
    pub async fn open(options: Options, clock: Arc<dyn Clock>) -> Result<Self, QueueError> {
        let link = connect(&options).await?;
        let publisher = Publisher::new(link.clone());
        let monitor = Arc::new(StreamMonitor::new(
            link.clone(),
            options.layout,
            Arc::clone(&clock),
        ));
        let shared = Arc::new(Shared {
            attempts: Attempts::start(publisher.clone(), Arc::clone(&monitor)),
            publisher,
            monitor,
            retries_room: StreamRoom::new(link.clone(), RETRIES, options.layout.bytes),
            letters_room: StreamRoom::new(link.clone(), DEAD, options.layout.bytes),
            inflight: InFlightWriter::default(),
            in_hand: Arc::new(ByteBudget::new(options.in_hand_bytes)),
            probing: ProbeSchedule::default(),
            clock,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            instance: fastrand::u64(..),
            joined: Mutex::default(),
            announced: Mutex::default(),
            route_epochs: Mutex::default(),
            conflicts: Conflicts::default(),
            index: options.index.clone(),
            verification: Verification::new(options.verifier.clone(), options.key_retry),
            servers: options.servers.clone(),
            link,
        });
        let watching = Arc::clone(&shared.monitor);
        shared.tasks.spawn(watching.watch(shared.closing.clone()));
        let noting = gap_notes::note_gaps(Arc::clone(&shared));
        shared.tasks.spawn(noting);
        let beside = JetStreamStores(Arc::clone(&shared));
        let stores: Arc<dyn Stores> = Arc::new(beside.clone());
        Ok(Self {
            beside,
            stores,
            shared,
            options,
            is_checked: OnceCell::new(),
        })
    }

    /// Returns the stores.
    pub fn stores(&self) -> &Arc<dyn Stores> {
        &self.stores
    }

    fn ensure_open(&self) -> Result<(), QueueError> {
        if self.shared.closing.is_cancelled() {
            Err(QueueError::Closed)
        } else {
            Ok(())
        }
    }

    /// Checks, until it succeeded once, that the cluster is as it should be. A queue that is read
    /// or written through refuses to work with any other.
    async fn check(&self) -> Result<(), QueueError> {
        let check = async {
            connected(&self.shared.link, CONNECT_WITHIN, &self.options.servers).await?;
            let report = cluster::check(&self.shared.link, &self.options.layout).await?;
            if report.is_good() {
                return cluster::make_inflight(&self.shared.link, &self.options.layout).await;
            }
            let why = format!(
                "{report}; `fluent-webhooks cluster check` says more, `cluster init` makes it so"
            );
            Err(QueueError::unavailable(CHECKING, why))
        };
        self.is_checked.get_or_try_init(|| check).await.copied()
    }

    async fn ensure_joined(&self, route: &Route, is_announced: bool) -> Result<(), QueueError> {
        if !is_announced {
            undisturbed(&self.shared, slice::from_ref(route)).await?;
        }
        ensure_consumers(&self.shared, route, None, is_announced).await
    }

    async fn join(&self, route: Route) -> Result<Box<dyn Consumer>, QueueError> {
        patiently(|| self.check()).await?;
        // Markers of attempts name it.
        self.shared.monitor.epoch().await?;
        self.shared.monitor.watch_retries_clock().await;
        // Until the fetcher shows that somebody with this match is here.
        let announced = self.shared.take_announced(&route);
        let is_announced = announced.is_some();
        patiently(|| self.ensure_joined(&route, is_announced)).await?;
        let is_first = self.shared.join(&route.name);
        if is_first {
            let retention = Retention {
                age: self.options.retention_age,
                crowded_age: self.options.crowded_age,
                every: self.options.janitor_every,
            };
            self.shared
                .tasks
                .spawn(retention::run(Arc::clone(&self.shared), retention));
        }
        let taking = RouteConsumer {
            shared: Arc::clone(&self.shared),
            route: route.name.as_str().into(),
            filter: route.filter.clone(),
            lease: route.lease,
            blocked: Arc::default(),
            in_hand: Arc::new(RouteBytes::new(Arc::clone(&self.shared.in_hand))),
            keeping: Arc::new(Semaphore::new(KEPT_TOGETHER)),
        };
        let (wants, asked) = mpsc::channel(1);
        let feed = Fetcher::open(taking, route, asked).await?;
        drop(announced);
        self.shared.tasks.spawn(feed.run());
        Ok(Box::new(NatsConsumer(wants)))
    }
}

/// Tries for a while: servers that choose a leader, or have much to do, answer late. If something
/// is wrong with the cluster, it fails at once.
async fn patiently<F>(mut attempt: impl FnMut() -> F) -> Result<(), QueueError>
where
    F: Future<Output = Result<(), QueueError>>,
{
    let began = tokio::time::Instant::now();
    loop {
        match attempt().await {
            Err(QueueError::Unavailable { action, .. })
                if action != CHECKING && began.elapsed() < CONNECT_WITHIN =>
            {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            done => return done,
        }
    }
}

impl Intake for JetStream {
    fn publish(&self, event: Event) -> BoxFuture<'_, Result<Receipt, QueueError>> {
        async move {
            self.ensure_open()?;
            self.shared.publish_unless_present(&event).await
        }
        .boxed()
    }

    fn quarantine(&self, body: Quarantined) -> BoxFuture<'_, Result<(), QueueError>> {
        self.beside.store(body)
    }

    fn capture_rejected(&self, webhook: RejectedWebhook) -> BoxFuture<'_, Result<(), QueueError>> {
        self.beside.capture(webhook)
    }

    fn impediment(&self) -> Option<Impediment> {
        self.shared.monitor.impediment()
    }
}

impl Upstream for JetStream {
    fn publish_many<'a>(&'a self, events: &'a [Event]) -> BoxFuture<'a, PublishResults> {
        async move {
            let epoch = async {
                self.ensure_open()?;
                self.shared.monitor.epoch().await
            };
            match epoch.await {
                Ok(epoch) => self.shared.publisher.publish(events, &epoch).await,
                Err(error) => PublishResults {
                    error: Some(error),
                    ..PublishResults::default()
                },
            }
        }
        .boxed()
    }

    fn presence(
        &self,
        position: Position,
        id: EventId,
    ) -> BoxFuture<'_, Result<Presence, QueueError>> {
        self.shared.presence_of(position, id).boxed()
    }

    fn republish(&self, event: Event) -> BoxFuture<'_, Result<Receipt, QueueError>> {
        async move {
            let epoch = self.shared.monitor.epoch().await?;
            self.shared.publisher.republish(&event, &epoch).await
        }
        .boxed()
    }

    fn horizon(&self) -> BoxFuture<'_, Result<Horizon, QueueError>> {
        self.shared.monitor.refresh().boxed()
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

impl Source for JetStream {
    fn announce<'a>(&'a self, routes: &'a [Route]) -> BoxFuture<'a, Result<(), QueueError>> {
        async move {
            patiently(|| self.check()).await?;
            // Holds are by the servers' clock.
            self.shared.monitor.epoch().await?;
            patiently(|| announce_together(&self.shared, routes)).await
        }
        .boxed()
    }

    fn subscribe(&self, route: Route) -> BoxFuture<'_, Result<Box<dyn Consumer>, QueueError>> {
        self.join(route).boxed()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), QueueError>> {
        probe(&self.shared).boxed()
    }

    fn show_status(&self, look: StatusSource) {
        self.shared
            .tasks
            .spawn(route_status::answer(Arc::clone(&self.shared), look));
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
        same_id::find_delivered(&self.beside, key, route).boxed()
    }

    fn claim_same_id<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
        (now, until): (Timestamp, Timestamp),
    ) -> BoxFuture<'a, Result<Claim, QueueError>> {
        async move {
            // By the servers' clock, since each process has its own.
            let skew = self.shared.monitor.skew();
            let now_until = (shifted(now, skew), shifted(until, skew));
            let claim = same_id::claim(&self.beside, key, route, id, now_until).await?;
            Ok(match claim {
                Claim::Attempted { other, until } => Claim::Attempted {
                    other,
                    until: shifted(until, -skew),
                },
                claim => claim,
            })
        }
        .boxed()
    }

    fn release_same_id<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
        granted: GrantedClaim,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        same_id::release(&self.beside, key, route, id, granted).boxed()
    }

    fn note_same_id_delivered<'a>(
        &'a self,
        key: FluentKey,
        route: &'a str,
        id: EventId,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        same_id::set_delivered(&self.beside, key, route, id).boxed()
    }
}

impl Lifecycle for JetStream {
    /// Never resolves: a cluster that is away may come back.
    fn failed(&self) -> BoxFuture<'_, String> {
        futures::future::pending().boxed()
    }

    fn health(&self) -> BoxFuture<'_, QueueHealth> {
        let (forged, key_unknown) = self.shared.verification.counts();
        let health = QueueHealth {
            is_reachable: self.has_room(),
            clock_ahead_ms: self.shared.monitor.clock_ahead_ms(),
            ids_known_for: self.shared.monitor.ids_known_for(),
            forged,
            key_unknown,
            spool: None,
        };
        std::future::ready(health).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.shared.closing.cancel();
            self.shared.tasks.close();
            let closed = async {
                self.shared.tasks.wait().await;
                let _ = self.shared.link.client.flush().await;
            };
            if tokio::time::timeout(CLOSE_WITHIN, closed).await.is_err() {
                tracing::warn!(
                    "not everything was given back to NATS: the rest comes by its lease"
                );
            }
        }
        .boxed()
    }
}

impl Drop for JetStream {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

/// Opens only the stores, for use beside the processes that serve the queue.
pub async fn open_stores(
    options: &Options,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Stores>, QueueError> {
    // Waits for the servers, so that a command says at once that they are away.
    let queue = JetStream::open(options.clone(), clock).await?;
    connected(&queue.shared.link, REQUEST * 2, &options.servers).await?;
    queue.shared.monitor.refresh().await?;
    Ok(Arc::clone(&queue.stores))
}
