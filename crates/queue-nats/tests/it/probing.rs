//! Readiness of dispatchers: fetching and settling are probed, which changes nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::SystemClock;
use fluent_queue_nats::JetStream;
use queue::conformance::event;
use queue::{Intake, Lifecycle, Route, RouteFilter, Source, StartPosition};

use crate::joining::world;

fn route() -> Route {
    let name = "probed".to_owned();
    let lease = Duration::from_secs(30);
    Route {
        name,
        filter: RouteFilter::default(),
        start: StartPosition::Beginning,
        lease,
    }
}

/// Waits until a probe says that it works: one that had no answer in time says nothing of a
/// queue that works, on a machine that stands still.
async fn works(queue: &JetStream) {
    let began = Instant::now();
    while let Err(error) = queue.probe().await {
        assert!(began.elapsed() < Duration::from_secs(60), "{error:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_is_right_and_takes_nothing() {
    let (mut servers, options) = world().await;
    let queue = JetStream::open(options, Arc::new(SystemClock))
        .await
        .unwrap();
    let mut consumer = queue.subscribe(route()).await.unwrap();
    queue.publish(event("P", "1")).await.unwrap();
    for _ in 0..20 {
        works(&queue).await;
    }
    let delivery = consumer.next(1).await.unwrap().remove(0);
    assert_eq!(delivery.attempt, 1, "no probe has taken it");
    works(&queue).await;

    servers.kill_all();
    let said = queue.probe().await.unwrap_err();
    assert!(
        said.to_string().contains("NATS") || said.to_string().contains("deliver"),
        "{said}"
    );
    servers.start_all().unwrap();
    works(&queue).await;
    drop(delivery);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_without_its_consumer_is_not_ready() {
    let (servers, options) = world().await;
    let queue = JetStream::open(options, Arc::new(SystemClock))
        .await
        .unwrap();
    let _consumer = queue.subscribe(route()).await.unwrap();
    works(&queue).await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    let stream = jetstream.get_stream("FLUENT_RETRIES").await.unwrap();
    stream.delete_consumer("probed").await.unwrap();
    let said = queue.probe().await.unwrap_err();
    assert!(said.to_string().contains("deliver"), "{said}");
    queue.close().await;
}
