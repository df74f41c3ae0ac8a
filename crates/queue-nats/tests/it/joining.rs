//! A route's consumers on the server, when others change or remove them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use event_model::{SystemClock, Timestamp};
use fluent_queue_nats::{JetStream, Options, cluster::Cluster};
use futures::StreamExt;
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::{
    Attempt, Consumer, DeadQuery, DeadReason, Delivery, Disposition, Intake, Lifecycle,
    MatchFields, Outcome, Route, RouteFilter, Settlement, Source, StartPosition,
};

pub(crate) async fn world() -> (Servers, Options) {
    let servers = Servers::start(1, &nats_server::Options::default()).unwrap();
    let mut options = Options::new(servers.urls());
    options.layout.bytes = 64 << 20;
    assert!(
        Cluster::connect(&options)
            .await
            .unwrap()
            .init()
            .await
            .unwrap()
            .is_good()
    );
    (servers, options)
}

pub(crate) async fn open(options: &Options) -> Arc<JetStream> {
    Arc::new(
        JetStream::open(options.clone(), Arc::new(SystemClock))
            .await
            .unwrap(),
    )
}

/// Returns the route `r`, for events of these names, or for all.
pub(crate) fn route(names: &[&str]) -> Route {
    let event = names.iter().map(|name| (*name).to_owned()).collect();
    let filter = RouteFilter::from(MatchFields {
        event,
        ..MatchFields::default()
    });
    Route {
        name: "r".to_owned(),
        filter,
        start: StartPosition::Now,
        lease: Duration::from_secs(5),
    }
}

pub(crate) fn settlement(disposition: Disposition) -> Settlement {
    let attempt = Attempt {
        started_at: Timestamp::UNIX_EPOCH,
        took: Duration::ZERO,
        outcome: Outcome::Done,
        status: None,
        detail: None,
    };
    Settlement {
        disposition,
        asked: true,
        attempt,
    }
}

async fn done(delivery: Delivery) -> String {
    let name = delivery.event.name().to_owned();
    delivery
        .ticket
        .settle(settlement(Disposition::Done))
        .await
        .unwrap();
    name
}

/// Returns the names of the next `count` different events.
pub(crate) async fn names(consumer: &mut dyn Consumer, count: usize) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    while seen.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(60), consumer.next(8)).await;
        for delivery in next
            .unwrap_or_else(|_| panic!("only {seen:?} came"))
            .unwrap()
        {
            seen.insert(done(delivery).await);
        }
    }
    seen
}

pub(crate) fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_deleted_by_hand_is_made_again_where_it_was() {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    queue.publish(event("A", "a")).await.unwrap();
    assert_eq!(names(&mut *consumer, 1).await, set(&["A"]));
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    let stream = jetstream.get_stream("FLUENT_EVENTS").await.unwrap();
    stream.delete_consumer("r").await.unwrap();
    // Published while there is no consumer: "from now on" would miss it.
    queue.publish(event("B", "b")).await.unwrap();
    let seen = names(&mut *consumer, 1).await;
    assert!(seen.is_subset(&set(&["A", "B"])), "{seen:?}");
    if !seen.contains("B") {
        assert_eq!(names(&mut *consumer, 1).await, set(&["B"]));
    }
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_that_lists_a_value_twice_joins_as_if_it_were_once() {
    let (_servers, options) = world().await;
    let queue = open(&options).await;
    let mut consumer = queue.subscribe(route(&["A", "B", "A"])).await.unwrap();
    for name in ["A", "C", "B"] {
        queue.publish(event(name, "a")).await.unwrap();
    }
    assert_eq!(names(&mut *consumer, 2).await, set(&["A", "B"]));
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wider_match_of_another_dispatcher_is_not_settled_by_the_one_before() {
    let (_servers, options) = world().await;
    let before = open(&options).await;
    let after = open(&options).await;
    let mut narrow = before.subscribe(route(&["OLD"])).await.unwrap();
    // It fetches all the time, and gets what it matches only after the other is gone.
    #[expect(clippy::disallowed_methods, reason = "it is awaited")]
    let asking = tokio::spawn(async move { names(&mut *narrow, 1).await });
    let mut wide = after.subscribe(route(&[])).await.unwrap();
    let wanted: Vec<String> = (0..40).map(|number| format!("W{number}")).collect();
    for name in &wanted {
        before.publish(event(name, "w")).await.unwrap();
    }
    assert_eq!(names(&mut *wide, 40).await, wanted.into_iter().collect());
    drop(wide);
    after.close().await;
    before.publish(event("OLD", "o")).await.unwrap();
    assert_eq!(
        asking.await.unwrap(),
        set(&["OLD"]),
        "the one before takes the route back"
    );
    before.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_died_alone_is_buried_though_another_died_before_it_began() {
    let (servers, options) = world().await;
    let before = open(&options).await;
    let route = Route {
        lease: Duration::from_secs(3),
        ..route(&[])
    };
    let mut consumer = before.subscribe(route.clone()).await.unwrap();
    before.publish(event("A", "a")).await.unwrap();
    let mut delivery = consumer.next(1).await.unwrap().remove(0);
    delivery.ticket.mark_exclusive().await.unwrap();
    std::mem::forget(delivery);
    // Sent to a process that crashed before reading it.
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    let raw: async_nats::jetstream::consumer::PullConsumer = jetstream
        .get_consumer_from_stream("r", "FLUENT_EVENTS")
        .await
        .unwrap();
    let mut sent = raw.fetch().max_messages(1).messages().await.unwrap();
    while sent.next().await.is_none() {
        sent = raw.fetch().max_messages(1).messages().await.unwrap();
    }
    let after = open(&options).await;
    let mut consumer = after.subscribe(route).await.unwrap();
    after.publish(event("B", "b")).await.unwrap();
    assert_eq!(names(&mut *consumer, 1).await, set(&["B"]));
    let letters = async || {
        let query = DeadQuery {
            limit: 10,
            ..DeadQuery::default()
        };
        let letters = after.stores().dead_letters().list(query).await.unwrap();
        letters
            .iter()
            .map(|letter| letter.reason)
            .collect::<Vec<_>>()
    };
    while letters().await.is_empty() {
        let more = tokio::time::timeout(Duration::from_millis(200), consumer.next(8)).await;
        assert!(more.is_err(), "it was attempted again: {more:?}");
    }
    assert_eq!(letters().await, [DeadReason::Crash]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_began_now_gets_all_of_a_stream_that_was_made_anew_while_it_ran() {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    queue.publish(event("A", "a")).await.unwrap();
    assert_eq!(names(&mut *consumer, 1).await, set(&["A"]));
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    for stream in [
        "FLUENT_EVENTS",
        "FLUENT_RETRIES",
        "FLUENT_DEAD",
        "FLUENT_QUARANTINE",
        "FLUENT_ATTEMPTS",
    ] {
        jetstream.delete_stream(stream).await.unwrap();
    }
    assert!(
        Cluster::connect(&options)
            .await
            .unwrap()
            .init()
            .await
            .unwrap()
            .is_good()
    );
    // Given again before the route is there: "from now on" would miss them.
    let giving = open(&options).await;
    for name in ["B", "C"] {
        giving.publish(event(name, "b")).await.unwrap();
    }
    assert_eq!(names(&mut *consumer, 2).await, set(&["B", "C"]));
    queue.close().await;
    giving.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_stays_while_its_dead_letter_cannot_be_written() {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let route = Route {
        lease: Duration::from_secs(2),
        ..route(&[])
    };
    let mut consumer = queue.subscribe(route).await.unwrap();
    queue.publish(event("A", "a")).await.unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    jetstream.delete_stream("FLUENT_DEAD").await.unwrap();
    let delivery = consumer.next(1).await.unwrap().remove(0);
    let settling = delivery.ticket.settle(dead());
    let settled = tokio::time::timeout(Duration::from_secs(3), settling).await;
    assert!(
        !matches!(settled, Ok(Ok(()))),
        "settled without its dead letter"
    );
    drop(settled);

    assert!(
        Cluster::connect(&options)
            .await
            .unwrap()
            .init()
            .await
            .unwrap()
            .is_good()
    );
    let again = tokio::time::timeout(Duration::from_secs(60), consumer.next(1)).await;
    let delivery = again.expect("the delivery comes again").unwrap().remove(0);
    assert_eq!(delivery.event.name(), "A");
    delivery.ticket.settle(dead()).await.unwrap();
    let query = DeadQuery {
        limit: 10,
        ..DeadQuery::default()
    };
    assert_eq!(
        queue
            .stores()
            .dead_letters()
            .list(query)
            .await
            .unwrap()
            .len(),
        1,
        "once"
    );
    queue.close().await;
}

fn dead() -> Settlement {
    let attempt = Attempt {
        started_at: Timestamp::UNIX_EPOCH,
        took: Duration::ZERO,
        outcome: Outcome::Permanent,
        status: Some(422),
        detail: None,
    };
    Settlement {
        disposition: Disposition::Dead(DeadReason::Permanent),
        asked: true,
        attempt,
    }
}
