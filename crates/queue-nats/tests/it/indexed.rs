//! Stories of events that are looked up in an index are the same as by reading the streams.

use std::path::Path;
use std::sync::Arc;

use event_model::{SystemClock, Timestamp};
use fluent_queue_nats::{JetStream, Options, cluster::Cluster};
use history_index::Index;
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::{
    Attempt, DeadReason, Disposition, Intake, Lifecycle, Outcome, Route, RouteFilter, Settlement,
    Source, StartPosition,
};

async fn world() -> (Servers, Options) {
    let servers = Servers::start(1, &nats_server::Options::default()).unwrap();
    let mut options = Options::new(servers.urls());
    options.layout.bytes = 64 << 20;
    make_streams(&options).await;
    (servers, options)
}

async fn make_streams(options: &Options) {
    assert!(
        Cluster::connect(options)
            .await
            .unwrap()
            .init()
            .await
            .unwrap()
            .is_good()
    );
}

async fn open(options: &Options, index: Option<&Path>) -> Arc<JetStream> {
    let index = index.map(|path| Arc::new(Index::open(path).unwrap()) as _);
    let options = Options {
        index,
        ..options.clone()
    };
    Arc::new(
        JetStream::open(options, Arc::new(SystemClock))
            .await
            .unwrap(),
    )
}

/// Publishes orders and records an attempt of each: every third becomes a dead letter.
async fn history(queue: &JetStream, count: usize) {
    for number in 0..count {
        queue
            .publish(event("E", &format!("HD_{number}")))
            .await
            .unwrap();
    }
    let lease = std::time::Duration::from_secs(20);
    let route = Route {
        name: "r".to_owned(),
        filter: RouteFilter::default(),
        start: StartPosition::Beginning,
        lease,
    };
    let mut consumer = queue.subscribe(route).await.unwrap();
    let mut settled = 0;
    while settled < count {
        for delivery in consumer.next(64).await.unwrap() {
            let is_dead = settled % 3 == 0;
            let outcome = if is_dead {
                Outcome::Permanent
            } else {
                Outcome::Done
            };
            let started_at = Timestamp::UNIX_EPOCH;
            let took = std::time::Duration::from_millis(7);
            let attempt = Attempt {
                started_at,
                took,
                outcome,
                status: Some(200),
                detail: None,
            };
            let disposition = if is_dead {
                Disposition::Dead(DeadReason::Permanent)
            } else {
                Disposition::Done
            };
            delivery
                .ticket
                .settle(Settlement {
                    disposition,
                    asked: true,
                    attempt,
                })
                .await
                .unwrap();
            settled += 1;
        }
    }
}

async fn told(queue: &JetStream, reference: &str) -> String {
    let stories = queue.stores().history().find(reference, 10).await.unwrap();
    serde_json::to_string_pretty(&stories).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_tells_what_the_streams_tell() {
    let (servers, options) = world().await;
    let folder = tempfile::tempdir().unwrap();
    let plain = open(&options, None).await;
    let path = folder.path().join("index.db");
    history(&plain, 30).await;
    let indexed = open(&options, Some(&path)).await;
    let id = event("E", "HD_4").id().to_string();
    for reference in ["HD_3", "HD_29", &id[..12], "HD_30", ""] {
        assert_eq!(
            told(&indexed, reference).await,
            told(&plain, reference).await,
            "{reference}"
        );
    }
    assert!(told(&indexed, "HD_3").await.contains("\"dead\""));
    // Later events are read when a story is asked for.
    plain.publish(event("LATER", "HD_3")).await.unwrap();
    assert!(told(&indexed, "HD_3").await.contains("LATER"));
    assert_eq!(told(&indexed, "HD_3").await, told(&plain, "HD_3").await);
    // A lost index is made again, and so is one of streams that were recreated.
    drop(indexed);
    std::fs::remove_file(&path).unwrap();
    let indexed = open(&options, Some(&path)).await;
    assert_eq!(told(&indexed, "HD_3").await, told(&plain, "HD_3").await);
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    for stream in ["FLUENT_EVENTS", "FLUENT_ATTEMPTS"] {
        jetstream.delete_stream(stream).await.unwrap();
    }
    make_streams(&options).await;
    plain.publish(event("NEW", "HD_5")).await.unwrap();
    assert_eq!(told(&indexed, "HD_3").await, "[]");
    assert!(told(&indexed, "HD_5").await.contains("NEW"));
    plain.close().await;
    indexed.close().await;
}
