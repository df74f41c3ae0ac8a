//! Publishing while the stream is away for a moment.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::SystemClock;
use fluent_queue_nats::cluster::Cluster;
use fluent_queue_nats::{JetStream, Options};
use queue::conformance::event;
use queue::{Intake, Lifecycle, QueueError};

/// A server may not know yet who stores a stream that was made a moment ago, and no server does
/// while a leader is chosen: the answer is the same as for a stream that is made a little later,
/// which is what this test uses.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_stores_for_a_moment_is_published_when_somebody_does() {
    let servers = nats_server::Cluster::start(1, &nats_server::Options::default()).unwrap();
    let mut options = Options::new(servers.urls());
    options.layout.bytes = 64 << 20;
    let cluster = Cluster::connect(&options).await.unwrap();
    assert!(cluster.init().await.unwrap().is_good());
    let queue: Arc<JetStream> = Arc::new(
        JetStream::open(options.clone(), Arc::new(SystemClock))
            .await
            .unwrap(),
    );
    let before = queue.publish(event("E", "before")).await.unwrap();

    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    let receipt = loop {
        jetstream.delete_stream("FLUENT_EVENTS").await.unwrap();
        let began = Instant::now();
        let make_again = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            assert!(cluster.init().await.unwrap().is_good());
            began.elapsed()
        };
        match tokio::join!(queue.publish(event("E", "a")), make_again) {
            (Ok(receipt), _) => break receipt,
            // It is tried for three seconds: this machine has taken too long to make it.
            (Err(QueueError::Unavailable { .. }), made_in) if made_in > Duration::from_secs(2) => {}
            (Err(error), made_in) => panic!("{error:?}, and it was there after {made_in:?}"),
        }
    };
    assert_eq!(
        (
            receipt.duplicate,
            receipt.position.sequence(),
            before.position.sequence()
        ),
        (false, 1, 1)
    );

    // Once the stream is gone for good, publishing fails in time.
    jetstream.delete_stream("FLUENT_EVENTS").await.unwrap();
    let refused = queue.publish(event("E", "b")).await.unwrap_err();
    assert!(
        matches!(refused, QueueError::Unavailable { .. }),
        "{refused:?}"
    );
    queue.close().await;
}
