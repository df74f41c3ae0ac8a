//! Events that are published together, as batches and one by one.

use std::sync::Arc;

use event_model::{Event, SystemClock};
use fluent_queue_nats::{JetStream, Options, cluster::Cluster};
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::{Intake, Lifecycle, Presence, Upstream};

async fn world() -> (Servers, Arc<JetStream>) {
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
    let queue = JetStream::open(options, Arc::new(SystemClock))
        .await
        .unwrap();
    (servers, Arc::new(queue))
}

fn events(name: &str, count: usize) -> Vec<Event> {
    (0..count)
        .map(|number| event(&format!("{name}{number}"), &format!("e{}", number % 7)))
        .collect()
}

/// Publishes, and checks that each is where its receipt says.
async fn publish(queue: &JetStream, events: &[Event]) -> Vec<bool> {
    let published = queue.publish_many(events).await;
    assert!(published.error.is_none(), "{:?}", published.error);
    for (event, receipt) in events.iter().zip(&published.receipts) {
        assert_eq!(
            queue.presence(receipt.position, event.id()).await.unwrap(),
            Presence::Present
        );
    }
    assert_eq!(published.receipts.len(), events.len());
    published
        .receipts
        .iter()
        .map(|receipt| receipt.duplicate)
        .collect()
}

/// Counts the messages that, by their headers, came in batches.
async fn batched(servers: &Servers) -> usize {
    let client = async_nats::connect(servers.urls()).await.unwrap();
    let stream = async_nats::jetstream::new(client)
        .get_stream("FLUENT_EVENTS")
        .await
        .unwrap();
    let mut count = 0;
    for position in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(position).await.unwrap();
        count += usize::from(message.headers.get("Nats-Batch-Id").is_some());
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_batches_and_every_receipt_says_where_its_event_is() {
    let (servers, queue) = world().await;
    let many = events("M", 600);
    assert_eq!(publish(&queue, &many).await, vec![false; 600]);
    assert!(
        batched(&servers).await >= 512,
        "two batches of 256, and what is left"
    );
    let few = events("F", 30);
    assert_eq!(publish(&queue, &few).await, vec![false; 30]);
    assert_eq!(queue.horizon().await.unwrap().last.sequence(), 630);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_known_does_not_keep_the_others_of_its_batch_out() {
    let (_servers, queue) = world().await;
    let many = events("K", 100);
    queue.publish(many[40].clone()).await.unwrap();
    let duplicates = publish(&queue, &many).await;
    assert_eq!(duplicates.iter().filter(|duplicate| **duplicate).count(), 1);
    assert!(duplicates[40]);
    assert_eq!(publish(&queue, &many).await, vec![true; 100]);
    assert_eq!(
        queue.horizon().await.unwrap().last.sequence(),
        100,
        "each is stored once"
    );
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_as_a_batch_is_known_to_the_next_leader_and_after_a_restart() {
    let mut servers = Servers::start(3, &nats_server::Options::default()).unwrap();
    let mut options = Options::new(servers.urls());
    options.layout.bytes = 64 << 20;
    options.layout.replicas = 3;
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
    let many = events("L", 200);
    // A stream that was made just now has no leader yet that everybody knows.
    let began = std::time::Instant::now();
    while let Err(error) = queue.publish(many[0].clone()).await {
        assert!(
            began.elapsed() < std::time::Duration::from_secs(60),
            "{error:?}"
        );
    }
    assert_eq!(publish(&queue, &many[1..]).await, vec![false; 199]);
    let leader = servers.leader("FLUENT_EVENTS").unwrap();
    servers.servers[leader].kill();
    all_are_known(&queue, &many).await;
    servers.kill_all();
    servers.start_all().unwrap();
    all_are_known(&queue, &many).await;
    queue.close().await;
}

async fn all_are_known(queue: &JetStream, events: &[Event]) {
    let began = std::time::Instant::now();
    loop {
        let published = queue.publish_many(events).await;
        if published.error.is_none() {
            assert!(
                published.receipts.iter().all(|receipt| receipt.duplicate),
                "stored twice"
            );
            break;
        }
        assert!(
            began.elapsed() < std::time::Duration::from_secs(60),
            "{:?}",
            published.error
        );
    }
    assert_eq!(
        queue.horizon().await.unwrap().last.sequence(),
        events.len() as u64
    );
}
