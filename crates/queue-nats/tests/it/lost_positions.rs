//! A route whose position on the server was lost while no dispatcher ran goes on where it was,
//! and misses nothing that is given again.

use std::time::Duration;

use event_model::testing::event_of_at;
use event_model::{Clock, SystemClock};
use fluent_queue_nats::cluster::Cluster;
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::{
    Consumer, Disposition, Intake, Lifecycle, QueueError, Route, Source, StartPosition, Upstream,
};
use tokio::time::timeout;

use crate::joining::{names, open, route, set, settlement, world};

const STREAMS: [&str; 8] = [
    "FLUENT_EVENTS",
    "FLUENT_RETRIES",
    "FLUENT_DEAD",
    "FLUENT_QUARANTINE",
    "FLUENT_ATTEMPTS",
    "FLUENT_INFLIGHT",
    "FLUENT_REFUSED",
    "FLUENT_MARKS",
];

async fn settle(consumer: &mut dyn Consumer, count: usize) {
    let mut settled = 0;
    while settled < count {
        for delivery in timeout(Duration::from_secs(60), consumer.next(64))
            .await
            .unwrap()
            .unwrap()
        {
            delivery
                .ticket
                .settle(settlement(Disposition::Done))
                .await
                .unwrap();
            settled += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_deleted_while_nobody_runs_goes_on_where_its_route_was() {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let from_the_start = Route {
        start: StartPosition::Beginning,
        ..route(&[])
    };
    let mut consumer = queue.subscribe(from_the_start.clone()).await.unwrap();
    let events: Vec<_> = (0..200)
        .map(|number| event("E", &number.to_string()))
        .collect();
    assert!(queue.publish_many(&events).await.error.is_none());
    settle(&mut *consumer, 200).await;
    drop(consumer);
    queue.close().await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    jetstream
        .get_stream("FLUENT_EVENTS")
        .await
        .unwrap()
        .delete_consumer("r")
        .await
        .unwrap();

    let queue = open(&options).await;
    queue.publish(event("MISSED", "m")).await.unwrap();
    let mut consumer = queue.subscribe(from_the_start).await.unwrap();
    assert_eq!(
        names(&mut *consumer, 1).await,
        set(&["MISSED"]),
        "the first that comes"
    );
    queue.close().await;
}

/// A server that lags behind forgets both consumers, and with them that the route was ever there:
/// only the noted floor says so.
async fn a_route_whose_consumers_are_both_gone_goes_on_where_it_was(start: StartPosition) {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let started = Route {
        start,
        ..route(&[])
    };
    let mut consumer = queue.subscribe(started.clone()).await.unwrap();
    let events: Vec<_> = (0..20)
        .map(|number| event("E", &number.to_string()))
        .collect();
    assert!(queue.publish_many(&events).await.error.is_none());
    settle(&mut *consumer, 20).await;
    drop(consumer);
    queue.close().await;
    delete_consumers(&servers).await;

    let queue = open(&options).await;
    queue.publish(event("MISSED", "m")).await.unwrap();
    let mut consumer = queue.subscribe(started).await.unwrap();
    queue.publish(event("AFTER", "a")).await.unwrap();
    assert_eq!(
        names(&mut *consumer, 2).await,
        set(&["MISSED", "AFTER"]),
        "what comes to a route that starts {start:?}"
    );
    queue.close().await;
}

/// Retention goes by what routes have settled, also by routes whose consumer the servers have lost:
/// a breaker, a pause or a stopped dispatcher may have left one behind.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_route_without_its_consumer_has_not_settled_is_kept() {
    let (servers, mut options) = world().await;
    options.retention_age = Duration::ZERO;
    options.janitor_every = Duration::from_millis(100);
    let queue = open(&options).await;
    let other = Route {
        name: "other".to_owned(),
        ..route(&[])
    };
    let mut ahead = queue.subscribe(other).await.unwrap();
    let mut behind = queue.subscribe(route(&[])).await.unwrap();
    queue.publish(event("OLD", "o")).await.unwrap();
    settle(&mut *ahead, 1).await;
    settle(&mut *behind, 1).await;
    drop(behind);
    queue.close().await;
    delete_consumers(&servers).await;

    let queue = open(&options).await;
    let mut ahead = queue
        .subscribe(Route {
            name: "other".to_owned(),
            ..route(&[])
        })
        .await
        .unwrap();
    queue.publish(event("MISSED", "m")).await.unwrap();
    settle(&mut *ahead, 1).await;
    let events = async || {
        let jetstream =
            async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
        let stream = jetstream.get_stream("FLUENT_EVENTS").await.unwrap();
        stream.get_info().await.unwrap().state
    };
    // It looks, and removes what both have settled.
    let removed = async {
        while events().await.first_sequence < 2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), removed).await.unwrap();
    rounds_of_retention(&servers, 5).await;
    assert_eq!(
        events().await.messages,
        1,
        "the other route may still need it"
    );
    let mut again = queue.subscribe(route(&[])).await.unwrap();
    assert_eq!(names(&mut *again, 1).await, set(&["MISSED"]));
    let removed = async {
        while events().await.messages > 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), removed).await.unwrap();
    queue.close().await;
}

/// Waits until some process has begun so many further rounds.
async fn rounds_of_retention(servers: &Servers, count: u64) {
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    let marks = jetstream.get_stream("FLUENT_MARKS").await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let rounds = async {
        while seen.len() as u64 <= count {
            let mark = marks.get_last_raw_message_by_subject("fluent.marks.duty.retention");
            seen.extend(mark.await.ok().map(|mark| mark.sequence));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), rounds).await.unwrap();
}

async fn delete_consumers(servers: &Servers) {
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    for stream in ["FLUENT_EVENTS", "FLUENT_RETRIES"] {
        let stream = jetstream.get_stream(stream).await.unwrap();
        stream.delete_consumer("r").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_consumers_deleted_while_nobody_runs_go_on_where_their_route_was() {
    tokio::join!(
        a_route_whose_consumers_are_both_gone_goes_on_where_it_was(StartPosition::Now),
        a_route_whose_consumers_are_both_gone_goes_on_where_it_was(StartPosition::Beginning)
    );
}

/// A person who forgets a route wants nothing of it to go on, whatever is left of it.
async fn a_forgotten_route_starts_anew(are_consumers_gone: bool) {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    queue.publish(event("A", "a")).await.unwrap();
    settle(&mut *consumer, 1).await;
    drop(consumer);
    queue.close().await;
    if are_consumers_gone {
        delete_consumers(&servers).await;
    }

    let queue = open(&options).await;
    queue.stores().forget("r").await.unwrap();
    assert!(
        matches!(
            queue.stores().forget("r").await,
            Err(QueueError::NotFound(_))
        ),
        "nothing is left of it"
    );
    queue.publish(event("BETWEEN", "b")).await.unwrap();
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    queue.publish(event("AFTER", "c")).await.unwrap();
    assert_eq!(names(&mut *consumer, 1).await, set(&["AFTER"]));
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_noted_of_a_route_is_forgotten_with_it() {
    tokio::join!(
        a_forgotten_route_starts_anew(false),
        a_forgotten_route_starts_anew(true)
    );
}

/// Another epoch of the stream: a floor that was stored in the one before says nothing about it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_made_anew_while_nobody_runs_is_delivered_from_its_beginning() {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    for name in ["A", "B"] {
        queue.publish(event(name, "a")).await.unwrap();
    }
    settle(&mut *consumer, 2).await;
    drop(consumer);
    queue.close().await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    jetstream.delete_stream("FLUENT_EVENTS").await.unwrap();
    assert!(
        Cluster::connect(&options)
            .await
            .unwrap()
            .init()
            .await
            .unwrap()
            .is_good()
    );
    let queue = open(&options).await;
    for name in ["C", "D", "E"] {
        queue.publish(event(name, "c")).await.unwrap();
    }
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    assert_eq!(names(&mut *consumer, 3).await, set(&["C", "D", "E"]));
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_spools_give_again_after_a_total_loss_is_not_before_now() {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    queue.publish(event("A", "a")).await.unwrap();
    settle(&mut *consumer, 1).await;
    drop(consumer);
    queue.close().await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    for stream in STREAMS {
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
    let spool = open(&options).await;
    for name in ["B", "C"] {
        spool
            .republish(event(name, "b").republished())
            .await
            .unwrap();
    }
    // A dispatcher that starts only now, with a route that is known nowhere.
    let queue = open(&options).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    assert_eq!(names(&mut *consumer, 2).await, set(&["B", "C"]));
    queue.close().await;
}

/// If nothing was lost, "from now on" is from now on.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_route_begins_now_in_a_new_stream_too() {
    let (_servers, options) = world().await;
    let queue = open(&options).await;
    queue.publish(event("BEFORE", "b")).await.unwrap();
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    queue.publish(event("AFTER", "a")).await.unwrap();
    assert_eq!(names(&mut *consumer, 1).await, set(&["AFTER"]));
    queue.close().await;
}

/// What a spool held while the streams were gone it sends as new, as soon as they are made again.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_route_gets_what_was_accepted_before_the_stream_was_made() {
    let (_servers, options) = world().await;
    let queue = open(&options).await;
    let before = SystemClock.now() - Duration::from_mins(1);
    let body = |name: &str| {
        format!(r#"{{"id":"{name}","name":"{name}","accountId":"ACME","retailerId":"1"}}"#)
    };
    let accepted = event_of_at(body("BEFORE"), before);
    queue.publish(accepted).await.unwrap();
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    queue.publish(event("AFTER", "a")).await.unwrap();
    assert_eq!(names(&mut *consumer, 2).await, set(&["BEFORE", "AFTER"]));
    queue.close().await;
}
