//! The dispatcher, and the backlogs that measurements work off.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dispatch::{
    BoxError, Context, DispatchError, Dispatcher, Done, Extensions, OpenContext, Registry,
};
use dispatcher::RouteSelection;
use event_model::{
    Account, Accounts, Algorithm, Event, Evidence, Headers, Inbound, KeyId, KeyName, Proof,
    SystemClock, Timestamp, Verified,
};
use process::Shutdown;
use queue::{Intake, Lifecycle, MatchFields, Source, StartPosition};
use queue_embedded::{Embedded, Options};
use schemars::JsonSchema;
use serde::Deserialize;
use settings::{OnSameId, RetrySettings, RouteSettings, Routes};
use simulator::Events;
use tokio::task::JoinSet;

use crate::report::Row;
use crate::{CONNECTIONS, cpu};

/// Attempts at once: enough to share the fsync of a group among many.
pub(crate) const CONCURRENCY: usize = 256;

pub(crate) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

/// A folder on the disk that the workspace is on: `/tmp` may be memory.
pub(crate) fn disk() -> anyhow::Result<PathBuf> {
    let folder = std::env::current_exe()?.with_file_name("bench-data");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Different events, admitted without the cost of signing.
pub(crate) fn events(count: usize) -> impl Iterator<Item = Event> {
    let name = KeyName::new("sydney", event_model::Environment::Sandbox);
    let key = Arc::new(KeyId::any_named(name.clone()));
    let accounts = Accounts::new([Account {
        name: "ACME".to_owned(),
        key: name,
        retailers: None,
    }]);
    let mut bodies = Events::new("ACME", 34, 11);
    (0..count).filter_map(move |_| {
        let evidence = Evidence {
            proof: Proof::Signed(Algorithm::Sha512),
            key: Arc::clone(&key),
            signature: "AAAA".repeat(43),
        };
        // In the future, so that no retention by age runs during the measurement.
        let received_at = Timestamp::from_second(4_000_000_000).ok()?;
        let inbound = Inbound {
            body: bodies.any().body.into(),
            headers: Headers::default(),
            received_at,
        };
        // A benchmark states by itself what is verified.
        Event::admit(Verified::assert(inbound, evidence), &accounts, None).ok()
    })
}

/// A queue with this many waiting events.
pub(crate) async fn backlog(folder: &Path, count: usize) -> anyhow::Result<Arc<Embedded>> {
    let queue = Arc::new(Embedded::open(
        Options::new(folder.join("queue.db")),
        Arc::new(SystemClock),
    )?);
    let mut events = events(count).peekable();
    while events.peek().is_some() {
        let some: Vec<_> = events
            .by_ref()
            .take(512)
            .map(|event| queue.publish(event))
            .collect();
        futures::future::try_join_all(some).await?;
    }
    Ok(queue)
}

/// The number of deliveries by all dispatchers.
pub(crate) static DELIVERED: AtomicUsize = AtomicUsize::new(0);

/// A dispatcher that does nothing but count.
#[derive(Debug)]
pub(crate) struct Noop;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct NoopSettings {}

impl Dispatcher for Noop {
    const KIND: &'static str = "noop";
    type Settings = NoopSettings;

    async fn open(_: NoopSettings, _: &OpenContext) -> Result<Self, BoxError> {
        Ok(Self)
    }

    async fn dispatch(&self, _: &Event, _: &Context) -> Result<Done, DispatchError> {
        DELIVERED.fetch_add(1, Ordering::Relaxed);
        Ok(Done::default())
    }
}

/// Measures a dispatcher with one route, from its start until everything is settled.
pub(crate) fn dispatcher(count: usize) -> anyhow::Result<Row> {
    let folder = tempfile::tempdir_in(disk()?)?;
    runtime()?.block_on(async {
        let queue = backlog(folder.path(), count).await?;
        let registry = Registry::new().with::<Noop>();
        let row = work_off(
            &[queue.clone() as Arc<dyn Source>],
            vec![route("all")],
            &registry,
            count,
        )
        .await?;
        queue.close().await;
        Ok(row)
    })
}

/// A route for all events that does nothing with them.
pub(crate) fn route(name: &str) -> RouteSettings {
    RouteSettings {
        name: name.to_owned(),
        terms: MatchFields::default(),
        repeated: Vec::new(),
        start: StartPosition::Beginning,
        concurrency: CONCURRENCY,
        retry: RetrySettings::default(),
        rate: None,
        breaker: None,
        enrich: None,
        entity_check: None,
        same_id: OnSameId::Deliver,
        on_success: None,
        on_dead_letter: None,
        dispatcher: "noop".to_owned(),
        table: serde_json::json!({}),
    }
}

/// Measures a dispatcher with these routes at each queue, until this many deliveries.
pub(crate) async fn work_off(
    queues: &[Arc<dyn Source>],
    routes: Vec<RouteSettings>,
    registry: &Registry,
    count: usize,
) -> anyhow::Result<Row> {
    work_off_in(
        Path::new("."),
        &Extensions::default(),
        queues,
        routes,
        registry,
        count,
    )
    .await
}

/// Like [`work_off`], with settings in this folder and with shared resources.
pub(crate) async fn work_off_in(
    folder: &Path,
    shared: &Extensions,
    queues: &[Arc<dyn Source>],
    routes: Vec<RouteSettings>,
    registry: &Registry,
    count: usize,
) -> anyhow::Result<Row> {
    let routes = Routes(routes);
    let shutdown = Shutdown::manual(Duration::from_secs(30));
    let wanted = DELIVERED.load(Ordering::Relaxed) + count;
    let began = Instant::now();
    let before = cpu::own();
    for queue in queues {
        let everything = RouteSelection::everything();
        let clock = Arc::new(SystemClock);
        let opened =
            dispatcher::open(&routes, &everything, folder, shared, registry, queue, clock).await?;
        opened.start(&shutdown);
    }
    while DELIVERED.load(Ordering::Relaxed) < wanted {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let row = Row::new(count, began.elapsed(), cpu::own().saturating_sub(before));
    shutdown.finish().await;
    Ok(row)
}

/// Runs `work` with each event, as many at once as there are connections.
pub(crate) async fn each<F, D>(events: Vec<Event>, work: F) -> anyhow::Result<Row>
where
    F: Fn(Event) -> D + Clone + Send + 'static,
    D: Future<Output = anyhow::Result<()>> + Send,
{
    each_of(events, CONNECTIONS, work).await
}

/// Runs `work` with each event, `at_once` at a time.
pub(crate) async fn each_of<F, D>(
    events: Vec<Event>,
    at_once: usize,
    work: F,
) -> anyhow::Result<Row>
where
    F: Fn(Event) -> D + Clone + Send + 'static,
    D: Future<Output = anyhow::Result<()>> + Send,
{
    let count = events.len();
    let began = Instant::now();
    let before = cpu::own();
    let mut tasks = JoinSet::new();
    for share in events.chunks(count.div_ceil(at_once)) {
        let work = work.clone();
        let share = share.to_vec();
        tasks.spawn(async move {
            for event in share {
                work(event).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(Row::new(
        count,
        began.elapsed(),
        cpu::own().saturating_sub(before),
    ))
}
