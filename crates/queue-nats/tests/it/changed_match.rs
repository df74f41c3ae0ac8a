//! A route whose match changes keeps its events, and gets those that it never had.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::PullConsumer;
use fluent_queue_nats::{JetStream, Options, cluster::Cluster};
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::{
    Disposition, Intake, Lifecycle, MatchFields, Route, RouteFilter, RouteState, Source,
    StartPosition, Upstream,
};
use tokio::time::{sleep, timeout};

use crate::joining::{names, open, set, settlement, world};
use crate::proxy::Proxy;

fn route(names: &[&str]) -> Route {
    let event = names.iter().map(|name| (*name).to_owned()).collect();
    let filter = RouteFilter::from(MatchFields {
        event,
        ..MatchFields::default()
    });
    Route {
        name: "r".to_owned(),
        filter,
        start: StartPosition::Beginning,
        lease: Duration::from_secs(5),
    }
}

async fn stream(servers: &Servers) -> async_nats::jetstream::stream::State {
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    jetstream
        .get_stream("FLUENT_EVENTS")
        .await
        .unwrap()
        .cached_info()
        .state
        .clone()
}

/// Returns the first position of the stream of events, and its number of events.
async fn stored(servers: &Servers) -> (u64, u64) {
    let state = stream(servers).await;
    (state.first_sequence, state.messages)
}

async fn stored_bytes(servers: &Servers) -> u64 {
    stream(servers).await.bytes
}

async fn state(queue: &JetStream) -> RouteState {
    let routes = queue.stores().routes().await.unwrap();
    routes.into_iter().find(|route| route.name == "r").unwrap()
}

/// Waits until retention has removed an event that every route has settled, and so has looked at
/// the streams since.
async fn removes(servers: &Servers, first: u64) {
    let began = Instant::now();
    while stored(servers).await.0 < first {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "nothing is removed"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// The match was `before` yesterday and is everything today. Nobody fetches, as behind an open
/// breaker, while events come that are old enough to be removed.
async fn becomes_everything(before: &[&str], change: impl FnOnce(&mut Options)) {
    let (servers, mut options) = world().await;
    options.janitor_every = Duration::from_millis(100);
    change(&mut options);
    let queue = open(&options).await;
    let mut consumer = queue.subscribe(route(before)).await.unwrap();
    queue.publish(event("OLD", "o")).await.unwrap();
    assert_eq!(names(&mut *consumer, 1).await, set(&["OLD"]));
    removes(&servers, 2).await;
    drop(consumer);
    queue.close().await;

    let queue = open(&options).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    for number in 0..5 {
        queue
            .publish(event(&format!("W{number}"), "w"))
            .await
            .unwrap();
    }
    // Ten rounds of retention.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        stored(&servers).await,
        (2, 5),
        "they are kept until the route has them"
    );
    assert_eq!(state(&queue).await.behind, 5);
    assert_eq!(
        names(&mut *consumer, 5).await,
        set(&["W0", "W1", "W2", "W3", "W4"])
    );
    removes(&servers, 7).await;
    assert_eq!(state(&queue).await.behind, 0);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_match_that_became_everything_never_had_is_kept_and_delivered() {
    let forgetful = |options: &mut Options| options.retention_age = Duration::ZERO;
    tokio::join!(
        becomes_everything(&["OLD"], forgetful),
        becomes_everything(&["OLD", "X"], forgetful),
        becomes_everything(&[], forgetful)
    );
}

/// The server's own view of a consumer that was made, or changed to be, without subjects is wrong
/// for as long as it runs: it must not decide what is removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_was_left_without_subjects_keeps_its_events_and_is_mended_by_joining() {
    let (servers, mut options) = world().await;
    (options.retention_age, options.janitor_every) = (Duration::ZERO, Duration::from_millis(100));
    let queue = open(&options).await;
    let mut consumer = queue.subscribe(route(&["OLD"])).await.unwrap();
    queue.publish(event("OLD", "o")).await.unwrap();
    assert_eq!(names(&mut *consumer, 1).await, set(&["OLD"]));
    removes(&servers, 2).await;
    drop(consumer);
    queue.close().await;

    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    let mut raw: PullConsumer = jetstream
        .get_consumer_from_stream("r", "FLUENT_EVENTS")
        .await
        .unwrap();
    let mut config = raw.info().await.unwrap().config.clone();
    (config.filter_subject, config.filter_subjects) = (String::new(), Vec::new());
    let request =
        serde_json::json!({ "stream_name": "FLUENT_EVENTS", "config": config, "action": "update" });
    let changed: serde_json::Value = jetstream
        .request("CONSUMER.CREATE.FLUENT_EVENTS.r", &request)
        .await
        .unwrap();
    assert!(changed["config"]["filter_subject"].is_null(), "{changed}");

    let queue = open(&options).await;
    let mut other = queue
        .subscribe(Route {
            name: "other".to_owned(),
            ..route(&[])
        })
        .await
        .unwrap();
    for name in ["A", "B"] {
        queue.publish(event(name, "a")).await.unwrap();
    }
    assert_eq!(names(&mut *other, 2).await, set(&["A", "B"]));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(stored(&servers).await, (2, 2), "the route has not had them");
    assert_eq!(state(&queue).await.behind, 2);
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    assert_eq!(names(&mut *consumer, 2).await, set(&["A", "B"]));
    queue.publish(event("C", "c")).await.unwrap();
    assert_eq!(
        names(&mut *consumer, 1).await,
        set(&["C"]),
        "and it is woken by what comes"
    );
    queue.close().await;
}

/// Publishes until more than 85 % of the stream's `bytes` are taken, and returns how many events.
async fn crowd(servers: &Servers, queue: &JetStream, bytes: u64) -> u64 {
    let mut count = 0;
    while stored_bytes(servers).await < bytes * 85 / 100 {
        let events: Vec<_> = (0..100)
            .map(|number| event("W", &(count + number).to_string()))
            .collect();
        let published = queue.publish_many(&events).await;
        assert!(published.error.is_none(), "{:?}", published.error);
        count += 100;
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowded_stream_removes_what_is_settled_and_what_no_spool_reads_back() {
    let (servers, mut options) = world().await;
    options.layout.bytes = 4 << 20;
    options.janitor_every = Duration::from_millis(100);
    Cluster::connect(&options)
        .await
        .unwrap()
        .init()
        .await
        .unwrap();
    let queue = open(&options).await;
    // Settles nothing, since it matches nothing of what comes.
    let _consumer = queue.subscribe(route(&["OLD"])).await.unwrap();
    let count = crowd(&servers, &queue, options.layout.bytes).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        stored(&servers).await,
        (1, count),
        "spools may still read them back"
    );
    let full = options.layout.dedup_window.as_secs();
    assert_eq!(
        queue.health().await.ids_known_for,
        Some(full),
        "nothing was removed yet"
    );
    queue.close().await;

    options.crowded_age = Duration::ZERO;
    let queue = open(&options).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let (first, left) = stored(&servers).await;
    assert!(
        first == 1 && left == count,
        "the route that now matches all has not had them: {first} {left}"
    );
    let mut settled = 0;
    while settled < count {
        let deliveries = timeout(Duration::from_secs(60), consumer.next(256))
            .await
            .unwrap()
            .unwrap();
        for delivery in deliveries {
            delivery
                .ticket
                .settle(settlement(Disposition::Done))
                .await
                .unwrap();
            settled += 1;
        }
    }
    removes(&servers, 2).await;
    // What is left is seconds old, and so is what the servers know.
    timeout(Duration::from_secs(60), async {
        while queue
            .health()
            .await
            .ids_known_for
            .is_none_or(|known| known >= full)
        {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("a shorter window is said");
    queue.close().await;
}

/// The version before has just read that nobody else has joined, fetches nothing at the moment,
/// and fetches again right after somebody has joined: it must not settle by what it read.
#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_new_version_takes_is_not_settled_by_one_that_asks_again() {
    let (_servers, options) = world().await;
    let before = open(&options).await;
    let after = open(&options).await;
    let decided_here = |when: &str| {
        let when = Some(queue::Condition::parse(when).unwrap());
        Route {
            filter: RouteFilter::from(MatchFields {
                when,
                ..MatchFields::default()
            }),
            ..route(&[])
        }
    };
    let mut these = before
        .subscribe(decided_here("event.entityRef == 'old'"))
        .await
        .unwrap();
    // It fetches no more when the one that it requested comes.
    assert!(
        timeout(Duration::from_millis(100), these.next(1))
            .await
            .is_err()
    );
    before.publish(event("FIRST", "1")).await.unwrap();
    timeout(Duration::from_secs(60), async {
        loop {
            let state = state(&before).await;
            if (state.position.sequence(), state.in_flight) == (1, 0) {
                break;
            }
        }
    })
    .await
    .expect("it settles what it does not match");
    let mut those = after
        .subscribe(decided_here("event.entityRef != 'old'"))
        .await
        .unwrap();
    before.publish(event("SECOND", "2")).await.unwrap();
    let came = timeout(Duration::from_millis(500), these.next(1)).await;
    assert!(came.is_err(), "nor is this: {came:?}");
    assert_eq!(names(&mut *those, 1).await, set(&["SECOND"]));
    after.close().await;
    before.close().await;
}

/// A pause that a person sets or ends while a version joins is not undone by it.
async fn a_persons_word_holds(pause: Option<queue::Pause>, before_it: Option<queue::Pause>) {
    let (servers, options) = world().await;
    let before = open(&options).await;
    let after = open(&options).await;
    let _these = before.subscribe(route(&["OLD"])).await.unwrap();
    let stores = before.stores();
    stores.set_paused("r", before_it.as_ref()).await.unwrap();
    let saying = async {
        sleep(Duration::from_millis(500)).await;
        stores.set_paused("r", pause.as_ref()).await.unwrap();
    };
    let (those, ()) = tokio::join!(after.subscribe(route(&["NEW"])), saying);
    let _those = those.unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    for stream in ["FLUENT_EVENTS", "FLUENT_RETRIES"] {
        let mut raw: PullConsumer = jetstream
            .get_consumer_from_stream("r", stream)
            .await
            .unwrap();
        assert_eq!(
            raw.info().await.unwrap().paused,
            pause.is_some(),
            "{stream}"
        );
    }
    after.close().await;
    before.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_or_its_end_that_comes_while_a_version_joins_holds() {
    let paused = || Some(queue::Pause::default());
    tokio::join!(
        a_persons_word_holds(paused(), None),
        a_persons_word_holds(None, paused())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_before_takes_a_route_back_from_one_that_was_killed_holding_an_event() {
    let (servers, options) = world().await;
    let before = open(&options).await;
    let mut narrow = before
        .subscribe(Route {
            start: StartPosition::Now,
            ..route(&["OLD"])
        })
        .await
        .unwrap();
    #[expect(clippy::disallowed_methods, reason = "it is awaited")]
    let asking = tokio::spawn(async move { names(&mut *narrow, 1).await });
    let proxy = Proxy::start(servers.servers[0].port()).await;
    let mut through = options.clone();
    (through.servers, through.discover_servers) = (vec![proxy.url()], false);
    let after = open(&through).await;
    let mut wide = after.subscribe(route(&[])).await.unwrap();
    before.publish(event("W", "w")).await.unwrap();
    let held = timeout(Duration::from_secs(60), wide.next(4))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(held.len(), 1);
    proxy.cut().await;
    before.publish(event("OLD", "o")).await.unwrap();
    let taken = timeout(Duration::from_secs(60), asking).await;
    assert_eq!(
        taken.expect("nobody serves the route").unwrap(),
        set(&["OLD"])
    );
    std::mem::forget((held, wide, after));
}
