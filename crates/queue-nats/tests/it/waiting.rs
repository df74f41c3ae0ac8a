//! Deliveries that wait hold nothing up, however many there are.

use std::sync::Arc;
use std::time::Duration;

use event_model::{SystemClock, Timestamp};
use fluent_queue_nats::{JetStream, Options, cluster::Cluster};
use queue::conformance::event;
use queue::{
    Attempt, Consumer, Delivery, Disposition, Intake, Lifecycle, Outcome, Pause, Route,
    RouteFilter, Settlement, Source, StartPosition, Upstream,
};

use crate::joining::{open, route, world};

const WAITING: usize = 10_000;

async fn settle(deliveries: Vec<Delivery>, disposition: Disposition) {
    let attempt = Attempt {
        started_at: Timestamp::UNIX_EPOCH,
        took: Duration::ZERO,
        outcome: Outcome::Transient,
        status: None,
        detail: None,
    };
    let settled = deliveries.into_iter().map(|delivery| {
        delivery.ticket.settle(Settlement {
            disposition,
            asked: true,
            attempt: attempt.clone(),
        })
    });
    futures::future::try_join_all(settled).await.unwrap();
}

async fn next(consumer: &mut dyn Consumer) -> Vec<Delivery> {
    tokio::time::timeout(Duration::from_secs(60), consumer.next(512))
        .await
        .expect("in time")
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_that_wait_for_an_hour_delay_nothing() {
    let servers = nats_server::Cluster::start(1, &nats_server::Options::default()).unwrap();
    let mut options = Options::new(servers.urls());
    options.layout.bytes = 256 << 20;
    assert!(
        Cluster::connect(&options)
            .await
            .unwrap()
            .init()
            .await
            .unwrap()
            .is_good()
    );
    let queue: Arc<JetStream> = Arc::new(
        JetStream::open(options, Arc::new(SystemClock))
            .await
            .unwrap(),
    );
    let events: Vec<_> = (0..WAITING)
        .map(|number| event("W", &format!("w{number}")))
        .collect();
    assert!(queue.publish_many(&events).await.error.is_none());
    let route = Route {
        name: "r".to_owned(),
        filter: RouteFilter::default(),
        start: StartPosition::Beginning,
        lease: Duration::from_secs(30),
    };
    let mut consumer = queue.subscribe(route).await.unwrap();
    let mut taken = 0;
    while taken < WAITING {
        let deliveries = next(&mut *consumer).await;
        taken += deliveries.len();
        settle(deliveries, Disposition::Again(Duration::from_hours(1))).await;
    }
    let state = queue.stores().routes().await.unwrap().remove(0);
    assert_eq!((state.waiting, state.in_flight), (WAITING as u64, 0));

    let began = std::time::Instant::now();
    queue.publish(event("N", "now")).await.unwrap();
    let delivery = next(&mut *consumer).await.remove(0);
    assert_eq!(delivery.event.name(), "N");
    // A request for messages lives for a second: whatever else is slow here, that
    // is what a new event may have to wait for.
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    settle(vec![delivery], Disposition::Done).await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_and_not_settled_is_still_the_oldest() {
    let (_servers, options) = world().await;
    let queue: Arc<JetStream> = Arc::new(
        JetStream::open(options, Arc::new(SystemClock))
            .await
            .unwrap(),
    );
    let name = "r".to_owned();
    let filter = RouteFilter::default();
    let lease = Duration::from_secs(30);
    let route = Route {
        name,
        filter,
        start: StartPosition::Beginning,
        lease,
    };
    let mut consumer = queue.subscribe(route).await.unwrap();
    let event = event("D", "due");
    let came_in = event.received_at();
    queue.publish(event).await.unwrap();
    settle(
        next(&mut *consumer).await,
        Disposition::Again(Duration::from_millis(100)),
    )
    .await;
    let began = std::time::Instant::now();
    // It has been due for long, and nobody has taken it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let state = queue.stores().routes().await.unwrap().remove(0);
    assert_eq!(
        (state.behind, state.waiting + state.in_flight, state.oldest),
        (0, 1, Some(came_in))
    );
    settle(next(&mut *consumer).await, Disposition::Done).await;
    while queue
        .stores()
        .routes()
        .await
        .unwrap()
        .remove(0)
        .oldest
        .is_some()
    {
        assert!(began.elapsed() < Duration::from_secs(60), "it is settled");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    queue.close().await;
}

/// A route whose state can't be read keeps nobody from seeing the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_can_not_be_read_costs_only_itself() {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let mut consumers = Vec::new();
    for name in ["paused", "well"] {
        let route = Route {
            name: name.to_owned(),
            ..route(&[])
        };
        consumers.push(queue.subscribe(route).await.unwrap());
    }
    let stores = queue.stores();
    stores
        .set_paused("paused", Some(&Pause::default()))
        .await
        .unwrap();
    assert_eq!(stores.routes().await.unwrap().len(), 2);
    // Who paused it, and why, is written there.
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    jetstream.delete_stream("FLUENT_MARKS").await.unwrap();
    let names: Vec<_> = stores
        .routes()
        .await
        .unwrap()
        .into_iter()
        .map(|route| route.name)
        .collect();
    assert_eq!(names, ["well"]);
    queue.close().await;
}
