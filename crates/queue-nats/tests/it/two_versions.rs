//! Two versions with different matches run side by side: one of them decides about each event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use fluent_queue_nats::{JetStream, Options};
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::{
    BreakerState, Condition, Consumer, Disposition, Intake, Lifecycle, MatchFields, Pause,
    QueueError, Route, RouteFilter, RouteProcessStatus, Source, StartPosition, StatusSource,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::joining::{open, settlement, world};

const IN_TIME: Duration = Duration::from_secs(60);

/// Number of times that a version delivered an event of a route.
type Deliveries = BTreeMap<(&'static str, &'static str, String), usize>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Delivered(Arc<Mutex<Deliveries>>, Arc<Mutex<BTreeSet<String>>>);

impl Delivered {
    /// Delivers whatever the route gets, without end.
    pub(crate) async fn by(
        self,
        version: &'static str,
        route: &'static str,
        mut consumer: Box<dyn Consumer>,
    ) {
        while let Ok(deliveries) = consumer.next(16).await {
            for delivery in deliveries {
                let name = delivery.event.name().to_owned();
                self.1
                    .lock()
                    .unwrap()
                    .insert(delivery.event.id().to_string());
                *self
                    .0
                    .lock()
                    .unwrap()
                    .entry((version, route, name))
                    .or_insert(0) += 1;
                delivery
                    .ticket
                    .settle(settlement(Disposition::Done))
                    .await
                    .unwrap();
            }
        }
    }

    /// Returns the ids of what anybody delivered.
    pub(crate) fn ids(&self) -> BTreeSet<String> {
        self.1.lock().unwrap().clone()
    }

    fn all(&self) -> Deliveries {
        self.0.lock().unwrap().clone()
    }

    fn count(&self) -> usize {
        self.all().values().sum()
    }
}

/// Makes a route with an expression, which is not in the subjects: the server sends a version
/// also what its match refuses.
pub(crate) fn route(name: &str, when: &str) -> Route {
    let when = Some(Condition::parse(when).unwrap());
    let filter = RouteFilter::from(MatchFields {
        when,
        ..MatchFields::default()
    });
    Route {
        name: name.to_owned(),
        filter,
        start: StartPosition::Beginning,
        lease: IN_TIME,
    }
}

/// Joins both routes with the matches of a version, and delivers.
async fn version(
    name: &'static str,
    matches: [(&'static str, &str); 2],
    options: &Options,
    (delivered, tasks): (&Delivered, &mut JoinSet<()>),
) -> Arc<JetStream> {
    let queue = open(options).await;
    for (route_name, when) in matches {
        let consumer = queue.subscribe(route(route_name, when)).await.unwrap();
        tasks.spawn(delivered.clone().by(name, route_name, consumer));
    }
    queue
}

/// Events that the settings move from one route to another, while the version before fetches all
/// the time: if it went on delivering what it matches, both routes would have them.
#[tokio::test(flavor = "multi_thread")]
async fn what_moves_to_another_route_is_delivered_once_while_both_versions_run() {
    const ALL: &str = "true";
    const NONE: &str = "false";
    let (servers, options): (Servers, Options) = world().await;
    let delivered = Delivered::default();
    let mut tasks = JoinSet::new();
    let mut before = Vec::new();
    for _ in 0..4 {
        let matches = [("here", ALL), ("there", NONE)];
        before.push(version("before", matches, &options, (&delivered, &mut tasks)).await);
    }
    before[0].publish(event("FIRST", "1")).await.unwrap();
    let until = async |count: usize| {
        let began = Instant::now();
        while delivered.count() < count {
            assert!(began.elapsed() < IN_TIME, "{:?}", delivered.all());
            sleep(Duration::from_millis(20)).await;
        }
    };
    until(1).await;
    let matches = [
        ("here", "event.name != 'MOVED'"),
        ("there", "event.name == 'MOVED'"),
    ];
    let after = version("after", matches, &options, (&delivered, &mut tasks)).await;
    for number in 0..40 {
        let name = if number % 2 == 0 { "MOVED" } else { "STAYED" };
        after
            .publish(event(name, &number.to_string()))
            .await
            .unwrap();
    }
    until(41).await;
    // Nothing of them is still on its way.
    let settled = async {
        while after
            .stores()
            .routes()
            .await
            .unwrap()
            .iter()
            .any(|route| route.in_flight + route.behind > 0)
        {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(IN_TIME, settled).await.expect("all is settled");
    let all = delivered.all();
    let of = |version, route, name: &str| all.get(&(version, route, name.to_owned())).copied();
    assert_eq!(of("after", "there", "MOVED"), Some(20), "{all:?}");
    assert_eq!(of("after", "here", "STAYED"), Some(20), "{all:?}");
    assert_eq!(all.len(), 3, "and nothing else, but the first: {all:?}");
    tasks.abort_all();
    after.close().await;
    for queue in before {
        queue.close().await;
    }
    drop(servers);
}

/// Makes a route for one type, which is in the subject: the server skips for a consumer what it
/// need not send.
fn of_type(name: &str, event: &str) -> Route {
    let terms = MatchFields {
        event: vec![event.to_owned()],
        ..MatchFields::default()
    };
    Route {
        filter: RouteFilter::from(terms),
        ..route(name, "true")
    }
}

/// Events that come all the time while their match moves from one route to another: a dispatcher
/// with the matches before must not pass over what it leaves to others.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_a_match_moves_is_somebodys() {
    let (servers, options): (Servers, Options) = world().await;
    for kind in ["expression", "subjects", "made"] {
        let delivered = Delivered::default();
        let mut tasks = JoinSet::new();
        let (here, there, other) = match kind {
            "expression" => (
                route("here", "true"),
                route("there", "false"),
                route("here", "false"),
            ),
            "subjects" => (
                of_type("here2", "MOVED"),
                of_type("there2", "OTHER"),
                of_type("here2", "OTHER"),
            ),
            _ => (
                route("here3", "true"),
                route("there3", "false"),
                route("here3", "false"),
            ),
        };
        // The version before has no such route, whose events begin with those that come then.
        let is_made = kind == "made";
        let start = if is_made {
            StartPosition::Now
        } else {
            there.start
        };
        let moved = Route {
            filter: here.filter.clone(),
            start,
            ..there.clone()
        };
        let name = |route: &Route| -> &'static str {
            if route.name.starts_with("here") {
                "here"
            } else {
                "there"
            }
        };
        let before = open(&options).await;
        for route in [here, there].into_iter().take(if is_made { 1 } else { 2 }) {
            let consumer = before.subscribe(route.clone()).await.unwrap();
            tasks.spawn(delivered.clone().by("before", name(&route), consumer));
        }
        let publisher = open(&options).await;
        let done = tokio_util::sync::CancellationToken::new();
        let mut publishing = {
            let publisher = Arc::clone(&publisher);
            let done = done.clone();
            let mut publishing = JoinSet::new();
            publishing.spawn(async move {
                let mut published = Vec::new();
                while !done.is_cancelled() {
                    let moved = event("MOVED", &format!("{kind}{}", published.len()));
                    published.push(moved.id().to_string());
                    publisher.publish(moved).await.unwrap();
                    sleep(Duration::from_millis(5)).await;
                }
                published
            });
            publishing
        };
        sleep(Duration::from_millis(300)).await;
        let after = open(&options).await;
        let routes = [other, moved];
        let mut consumers = Vec::new();
        after.announce(&routes).await.unwrap();
        for route in routes {
            let consumer = after.subscribe(route.clone()).await.unwrap();
            consumers.push((name(&route), consumer));
        }
        for (route, consumer) in consumers {
            tasks.spawn(delivered.clone().by("after", route, consumer));
        }
        sleep(Duration::from_millis(300)).await;
        done.cancel();
        let published = publishing.join_next().await.unwrap().unwrap();
        // What its server sends again after a second may still come.
        let has_all = || {
            published
                .iter()
                .all(|id| delivered.1.lock().unwrap().contains(id))
        };
        let began = Instant::now();
        while !has_all() && began.elapsed() < IN_TIME {
            sleep(Duration::from_millis(50)).await;
        }
        let all = delivered.ids();
        let nobodys = published.iter().filter(|id| !all.contains(*id)).count();
        assert_eq!(
            nobodys,
            0,
            "of {}, {kind}: {:?}",
            published.len(),
            delivered.all()
        );
        tasks.abort_all();
        for queue in [before, publisher, after] {
            queue.close().await;
        }
    }
    drop(servers);
}

/// A version that announces a match and crashes before anybody left it an event leaves nothing
/// behind: otherwise the server would go on to send every event to a route that wants a few.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_announced_by_one_that_died_is_taken_back() {
    let (servers, options): (Servers, Options) = world().await;
    let delivered = Delivered::default();
    let mut tasks = JoinSet::new();
    let served = Route {
        lease: Duration::from_secs(2),
        ..of_type("here", "MOVED")
    };
    let before = open(&options).await;
    let consumer = before.subscribe(served.clone()).await.unwrap();
    tasks.spawn(delivered.clone().by("before", "here", consumer));
    let client = async_nats::connect(servers.urls()).await.unwrap();
    let stream = async_nats::jetstream::new(client)
        .get_stream("FLUENT_EVENTS")
        .await
        .unwrap();
    let subjects = async || {
        let mut consumer: PullConsumer = stream.get_consumer("here").await.unwrap();
        let config = consumer.info().await.unwrap().config.clone();
        [config.filter_subjects, vec![config.filter_subject]].concat()
    };
    let wanted = subjects().await;

    let dying = open(&options).await;
    let changed = [of_type("here", "OTHER")];
    // Between the two steps, where this machine is quick enough.
    let announced = async {
        while subjects().await == wanted {
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        said = dying.announce(&changed) => said.unwrap(),
        () = announced => {}
    }
    dying.close().await;
    let began = Instant::now();
    while subjects().await != wanted {
        assert!(began.elapsed() < 2 * IN_TIME, "{:?}", subjects().await);
        sleep(Duration::from_millis(200)).await;
    }
    before.publish(event("MOVED", "1")).await.unwrap();
    while delivered.count() < 1 {
        assert!(began.elapsed() < 3 * IN_TIME, "{:?}", delivered.all());
        sleep(Duration::from_millis(20)).await;
    }
    tasks.abort_all();
    before.close().await;
}

/// A pause that a person sets while matches change is not undone by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_while_a_match_changes_stays() {
    let (_servers, options): (Servers, Options) = world().await;
    let before = open(&options).await;
    let after = open(&options).await;
    let _serving = before.subscribe(of_type("here", "MOVED")).await.unwrap();
    let changed = [of_type("here", "OTHER")];
    let pausing = async {
        // Between the two steps.
        sleep(Duration::from_millis(700)).await;
        before
            .stores()
            .set_paused("here", Some(&Pause::default()))
            .await
            .unwrap();
    };
    let (announced, ()) = tokio::join!(after.announce(&changed), pausing);
    announced.unwrap();
    let _joined = after.subscribe(changed[0].clone()).await.unwrap();
    let routes = after.stores().routes().await.unwrap();
    assert!(
        routes
            .iter()
            .any(|route| route.name == "here" && route.paused),
        "{routes:?}"
    );
    before.close().await;
    after.close().await;
}

/// Two services that have one route, each with a match of its own.
#[tokio::test(flavor = "multi_thread")]
async fn since_when_another_match_decides_is_shown_with_the_process_that_is_left_out() {
    let (servers, options): (Servers, Options) = world().await;
    let mut queues = Vec::new();
    let mut consumers = Vec::new();
    for (process, event) in [("first:1", "A"), ("second:2", "B")] {
        let queue = open(&options).await;
        queue.show_status(reports_as(process));
        let route = Route {
            lease: Duration::from_secs(5),
            ..of_type("r", event)
        };
        consumers.push(queue.subscribe(route).await.unwrap());
        queues.push(queue);
    }
    let left_out = async |queue: &JetStream| -> BTreeMap<String, bool> {
        let routes = queue.stores().routes().await.unwrap();
        let working = routes.into_iter().flat_map(|route| route.working);
        working
            .map(|working| (working.process, working.superseded_since.is_some()))
            .collect()
    };
    let until = async |queue: &JetStream, expected: &[(&str, bool)]| {
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(process, is_left_out)| ((*process).to_owned(), *is_left_out))
            .collect();
        let began = Instant::now();
        loop {
            let found = left_out(queue).await;
            if found == expected {
                break;
            }
            assert!(began.elapsed() < IN_TIME, "{found:?}");
            sleep(Duration::from_millis(100)).await;
        }
    };
    until(&queues[0], &[("first:1", true), ("second:2", false)]).await;
    drop(consumers.pop());
    queues.pop().unwrap().close().await;
    until(&queues[0], &[("first:1", false)]).await;
    drop(consumers);
    queues[0].close().await;
    drop(servers);
}

/// While it is paused, or rests behind its breaker, it fetches nothing and has nothing in hand, and
/// what waits for it is no less its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_rests_in_another_process_is_not_forgotten() {
    let (servers, options) = world().await;
    let serving = open(&options).await;
    serving.show_status(reports_as("first:1"));
    let mut consumer = serving.subscribe(crate::joining::route(&[])).await.unwrap();
    serving.publish(event("E", "a")).await.unwrap();
    let waits = consumer.next(1).await.unwrap().remove(0);
    let wait = Disposition::Again(Duration::from_hours(1));
    waits.ticket.settle(settlement(wait)).await.unwrap();
    // A person works with stores of their own.
    let stores = open(&options).await;
    let forgotten = stores.stores().forget("r").await;
    assert!(
        matches!(forgotten, Err(QueueError::InUse(_))),
        "{forgotten:?}"
    );
    let routes = stores.stores().routes().await.unwrap();
    assert_eq!(routes[0].waiting, 1);
    drop(consumer);
    serving.close().await;
    let begun = Instant::now();
    while stores.stores().forget("r").await.is_err() {
        assert!(begun.elapsed() < IN_TIME, "nobody serves it any more");
        sleep(Duration::from_millis(100)).await;
    }
    stores.close().await;
    drop(servers);
}

/// A process that reports its route `r`.
fn reports_as(process: &'static str) -> StatusSource {
    let report = RouteProcessStatus {
        route: "r".to_owned(),
        process: process.to_owned(),
        breaker: BreakerState::Closed,
        throttled: false,
        superseded_since: None,
    };
    StatusSource::new(move || vec![report.clone()], |_| {})
}
