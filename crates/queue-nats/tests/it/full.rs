//! A full stream: reported, refused, and over when there is room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::SystemClock;
use fluent_queue_nats::{JetStream, Options, cluster::Cluster};
use queue::conformance::event;
use queue::{Intake, Lifecycle, QueueError, Upstream};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_refuses_and_takes_again_when_there_is_room() {
    let servers = nats_server::Cluster::start(1, &nats_server::Options::default()).unwrap();
    let mut options = Options::new(servers.urls());
    options.layout.bytes = 4 << 20;
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
    let mut stored = 0;
    let refused = loop {
        let events: Vec<_> = (0..500)
            .map(|number| event("F", &format!("{stored}-{number}")))
            .collect();
        let published = queue.publish_many(&events).await;
        stored += published.receipts.len();
        if let Some(error) = published.error {
            break error;
        }
    };
    assert!(matches!(refused, QueueError::Full), "{refused:?}");
    assert!(
        queue.horizon().await.unwrap().last.sequence() >= stored as u64,
        "what was answered for is there"
    );
    assert!(!queue.has_room());

    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    jetstream
        .get_stream("FLUENT_EVENTS")
        .await
        .unwrap()
        .purge()
        .await
        .unwrap();
    let began = Instant::now();
    while !queue.has_room() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it is not noticed that there is room"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    queue.publish(event("F", "again")).await.unwrap();
    queue.close().await;
}
