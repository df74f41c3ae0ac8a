//! Matches that change together, where something is late: no event is left to nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use event_model::{Clock, SystemClock};
use fluent_queue_nats::{JetStream, Options};
use futures::StreamExt;
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::{Intake, Lifecycle, Route, Source, StartPosition};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::joining::{open, world};
use crate::proxy::Proxy;
use crate::two_versions::{Delivered, route};

const IN_TIME: Duration = Duration::from_secs(60);

/// Publishes an event now and then until it is stopped.
struct Publishing {
    done: CancellationToken,
    task: JoinSet<BTreeSet<String>>,
}

impl Publishing {
    async fn start(options: &Options) -> Self {
        let queue = open(options).await;
        let done = CancellationToken::new();
        let mut task = JoinSet::new();
        let is_done = done.clone();
        task.spawn(async move {
            let mut published = BTreeSet::new();
            while !is_done.is_cancelled() {
                let moved = event("MOVED", &published.len().to_string());
                published.insert(moved.id().to_string());
                queue.publish(moved).await.unwrap();
                sleep(Duration::from_millis(20)).await;
            }
            queue.close().await;
            published
        });
        Self { done, task }
    }

    /// Waits until everything that was published is delivered by somebody.
    async fn wait_until_delivered(mut self, delivered: &Delivered) {
        self.done.cancel();
        let published = self.task.join_next().await.unwrap().unwrap();
        let began = Instant::now();
        loop {
            let nobodys = published.difference(&delivered.ids()).count();
            if nobodys == 0 {
                return;
            }
            assert!(
                began.elapsed() < IN_TIME / 2,
                "{nobodys} of {} are nobody's",
                published.len()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The two routes between which the events move, as both versions have them.
fn moving() -> ([Route; 2], [Route; 2]) {
    let old = [route("here", "true"), route("there", "false")];
    let new = [route("here", "false"), route("there", "true")];
    (old, new)
}

/// Joins both routes and delivers.
async fn serve(
    version: &'static str,
    queue: &JetStream,
    routes: &[Route],
    (delivered, tasks): (&Delivered, &mut JoinSet<()>),
) {
    for route in routes {
        let consumer = queue.subscribe(route.clone()).await.unwrap();
        let name = if route.name == "here" {
            "here"
        } else {
            "there"
        };
        tasks.spawn(delivered.clone().by(version, name, consumer));
    }
}

/// So many routes change over so slow a connection that saying it takes long: the first of them
/// must not be left to the new version while the last passes over what it gets.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_nobodys_while_many_matches_change_slowly() {
    let (servers, options): (Servers, Options) = world().await;
    let delivered = Delivered::default();
    let mut tasks = JoinSet::new();
    let ([old_here, old_there], [here, there]) = moving();
    let before = open(&options).await;
    let routes = [old_here, old_there];
    serve("before", &before, &routes, (&delivered, &mut tasks)).await;
    let mut others = Vec::new();
    let between: Vec<_> = (0..32).map(|number| format!("other{number}")).collect();
    for name in &between {
        others.push(before.subscribe(route(name, "false")).await.unwrap());
    }

    let proxy = Proxy::start(servers.servers[0].port()).await;
    let mut through = options.clone();
    (through.servers, through.discover_servers) = (vec![proxy.url()], false);
    let after = open(&through).await;
    after.announce(&[]).await.unwrap();
    proxy.slow_down(Duration::from_millis(1500));
    let publishing = Publishing::start(&options).await;
    let changing: Vec<_> = std::iter::once(here.clone())
        .chain(between.iter().map(|name| route(name, "1 == 2")))
        .chain([there.clone()])
        .collect();
    after.announce(&changing).await.unwrap();
    // Otherwise it would take long to deliver.
    proxy.slow_down(Duration::ZERO);
    serve("after", &after, &[here, there], (&delivered, &mut tasks)).await;
    publishing.wait_until_delivered(&delivered).await;
    tasks.abort_all();
    drop(others);
    after.close().await;
    before.close().await;
}

/// A process of the version before starts while the next one takes over.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_starts_with_the_matches_before_waits_until_the_new_version_has_joined() {
    let (_servers, options): (Servers, Options) = world().await;
    let delivered = Delivered::default();
    let mut tasks = JoinSet::new();
    let (old, [here, there]) = moving();
    let before = open(&options).await;
    serve("before", &before, &old, (&delivered, &mut tasks)).await;
    let publishing = Publishing::start(&options).await;

    let after = open(&options).await;
    after
        .announce(&[here.clone(), there.clone()])
        .await
        .unwrap();
    let again = open(&options).await;
    let (joined, has_joined) = oneshot::channel();
    let mut starting = JoinSet::new();
    starting.spawn({
        let again = Arc::clone(&again);
        let old = old.clone();
        async move {
            again.announce(&old).await.unwrap();
            let mut consumers = Vec::new();
            for route in old.into_iter().rev() {
                consumers.push(again.subscribe(route).await.unwrap());
            }
            let _ = joined.send(consumers);
        }
    });
    serve("after", &after, &[here], (&delivered, &mut tasks)).await;
    // It has time enough to join, if it does not wait.
    let early = timeout(Duration::from_secs(5), has_joined).await;
    serve("after", &after, &[there], (&delivered, &mut tasks)).await;
    assert!(early.is_err(), "it joined between the two routes");
    publishing.wait_until_delivered(&delivered).await;
    tasks.abort_all();
    drop(starting);
    for queue in [before, after, again] {
        queue.close().await;
    }
}

/// Runs a queue in a thread of its own, which can be made to stand still.
fn on_a_thread(
    options: Options,
    routes: Vec<Route>,
    stands_still: oneshot::Receiver<Duration>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let queue = JetStream::open(options, Arc::new(SystemClock))
                .await
                .unwrap();
            let standing = async {
                if let Ok(time) = stands_still.await {
                    std::thread::sleep(time);
                }
            };
            let (announced, ()) = tokio::join!(queue.announce(&routes), standing);
            announced.unwrap();
            queue.close().await;
        });
    })
}

fn metadata<'a>(request: &'a Value, name: &str) -> Option<&'a str> {
    request["config"]["metadata"][name].as_str()
}

fn held_until(request: &Value) -> Option<i64> {
    metadata(request, "fluent-held-until")?.parse().ok()
}

fn now() -> i64 {
    SystemClock.now().as_millisecond()
}

/// A process that stood still between the two steps, for longer than what it said in the first
/// lasts, begins again: no route is left to it while another may pass over what it gets.
#[tokio::test(flavor = "multi_thread")]
async fn who_stood_still_between_the_steps_begins_again() {
    let (servers, options): (Servers, Options) = world().await;
    let before = open(&options).await;
    let (old, new) = moving();
    let mut consumers = Vec::new();
    for route in old {
        consumers.push(before.subscribe(route).await.unwrap());
    }
    let client = async_nats::connect(servers.urls()).await.unwrap();
    let mut changes = client
        .subscribe("$JS.API.CONSUMER.CREATE.FLUENT_EVENTS.*")
        .await
        .unwrap();
    client.flush().await.unwrap();
    let (stand_still, stands_still) = oneshot::channel();
    let mut stand_still = Some(stand_still);
    let after = on_a_thread(options.clone(), new.to_vec(), stands_still);
    let mut held = BTreeMap::new();
    let mut left = BTreeSet::new();
    while left.len() < 2 {
        let message = timeout(2 * IN_TIME, changes.next()).await.unwrap().unwrap();
        let request: Value = serde_json::from_slice(&message.payload).unwrap();
        let name = name_of(&request);
        let until = held_until(&request);
        if metadata(&request, "fluent-filter-next").is_some() {
            assert!(
                held.len() == 2 && held.values().all(|until| *until > now()),
                "{name} is left to others while {held:?} are held, at {}",
                now()
            );
            left.insert(name.clone());
        }
        held.remove(&name);
        held.extend(until.map(|until| (name, until)));
        if held.len() == 2
            && let Some(stand_still) = stand_still.take()
        {
            let lasts = held.values().max().unwrap().saturating_sub(now());
            let lasts = Duration::from_millis(u64::try_from(lasts).unwrap());
            stand_still.send(lasts + Duration::from_secs(1)).unwrap();
        }
    }
    after.join().unwrap();
    drop(consumers);
    before.close().await;
}

fn name_of(request: &Value) -> String {
    request["config"]["durable_name"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// A new version that has said so and joins late is waited for: nobody takes its routes back while
/// it is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_joins_late_finds_its_routes_left_to_it() {
    let (_servers, options): (Servers, Options) = world().await;
    let delivered = Delivered::default();
    let mut tasks = JoinSet::new();
    // They look every half second whether somebody serves the routes.
    let soon = |route: Route| Route {
        lease: Duration::from_secs(2),
        start: StartPosition::Beginning,
        ..route
    };
    let (old, new) = moving();
    let (old, [here, there]) = (old.map(soon), new.map(soon));
    let before = open(&options).await;
    serve("before", &before, &old, (&delivered, &mut tasks)).await;
    let publishing = Publishing::start(&options).await;
    let after = open(&options).await;
    after
        .announce(&[here.clone(), there.clone()])
        .await
        .unwrap();
    serve("after", &after, &[here], (&delivered, &mut tasks)).await;
    // The last route is joined only now, where there are many.
    sleep(Duration::from_secs(5)).await;
    serve("after", &after, &[there], (&delivered, &mut tasks)).await;
    publishing.wait_until_delivered(&delivered).await;
    tasks.abort_all();
    for queue in [before, after] {
        queue.close().await;
    }
}
