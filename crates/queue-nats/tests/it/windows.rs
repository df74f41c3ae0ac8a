//! How long the servers know an id, and the marks of one id: for the window of the settings.

use std::sync::Arc;
use std::time::Duration;

use event_model::{Clock, SystemClock};
use fluent_queue_nats::{JetStream, cluster::Cluster};
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::same_id::Claim;
use queue::{Intake, Lifecycle, Source};
use tokio::time::{Instant, sleep};

use crate::joining::{open, world};

const WINDOW: Duration = Duration::from_secs(3);

const DAY: Duration = Duration::from_hours(24);

/// A server reads a clock of its own, to the millisecond.
const CLOCKS_DIFFER: Duration = Duration::from_secs(1);

const IN_TIME: Duration = Duration::from_secs(60);

/// Servers that know for this long, for which the settings are too careful, what the settings
/// have them know.
async fn known_for(window: Duration) -> (Servers, Arc<JetStream>) {
    let (servers, options) = world().await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    for stream in ["FLUENT_EVENTS", "FLUENT_SAME_IDS"] {
        let mut config = jetstream
            .get_stream(stream)
            .await
            .unwrap()
            .cached_info()
            .config
            .clone();
        config.duplicate_window = window;
        if config.max_age > Duration::ZERO {
            config.max_age = window;
        }
        jetstream.update_stream(config).await.unwrap();
    }
    let queue = open(&options).await;
    (servers, queue)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_a_duplicate_within_the_window_and_an_event_anew_after_it() {
    let (_servers, queue) = known_for(WINDOW).await;
    let again = event("E", "a");
    let began = Instant::now();
    assert!(!queue.publish(again.clone()).await.unwrap().duplicate);
    let mut duplicates = 0;
    while queue.publish(again.clone()).await.unwrap().duplicate {
        duplicates += 1;
        assert!(began.elapsed() < IN_TIME, "it is known for ever");
        sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() >= WINDOW, "only for {:?}", began.elapsed());
    assert!(duplicates > 0, "the machine was too slow for this");
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn which_of_one_id_is_delivered_is_known_for_the_window() {
    let (_servers, queue) = known_for(WINDOW).await;
    let first = event("E", "a");
    let second = event("E", "b");
    let key = first.fluent_key();
    let began = Instant::now();
    queue
        .note_same_id_delivered(key, "r", first.id())
        .await
        .unwrap();
    loop {
        let now = SystemClock.now();
        match queue
            .claim_same_id(key, "r", second.id(), (now, now + Duration::from_secs(60)))
            .await
            .unwrap()
        {
            Claim::Delivered(id) => assert_eq!(id, first.id()),
            Claim::Granted(_) => break,
            other @ Claim::Attempted { .. } => panic!("{other:?}"),
        }
        assert!(began.elapsed() < IN_TIME, "it is known for ever");
        sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() >= WINDOW, "only for {:?}", began.elapsed());
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_of_one_id_that_had_to_make_room_are_told_to_operators() {
    const ROOM: usize = 3;
    let (servers, options) = world().await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    let stream = jetstream.get_stream("FLUENT_SAME_IDS").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    config.max_messages = ROOM as i64;
    jetstream.update_stream(config).await.unwrap();
    let queue = open(&options).await;
    let known_for = async || queue.stores().health().await.unwrap().same_ids_known_for;
    let deliver = async |number: usize| {
        let event = event(&format!("E{number}"), "a");
        let key = event.fluent_key();
        queue
            .note_same_id_delivered(key, "r", event.id())
            .await
            .unwrap();
    };
    for number in 1..ROOM {
        deliver(number).await;
    }
    assert_eq!(known_for().await, None, "there is room");
    let began = Instant::now();
    for number in ROOM..ROOM * 3 {
        deliver(number).await;
    }
    let known_for = known_for().await.expect("the first have made room");
    assert!(
        known_for <= began.elapsed() + CLOCKS_DIFFER,
        "{known_for:?}"
    );
    queue.close().await;
}

/// As long as nobody waits for.
#[tokio::test(flavor = "multi_thread")]
async fn the_servers_are_told_the_windows_of_the_settings() {
    let (servers, mut options) = world().await;
    options.layout.dedup_window = DAY * 4;
    assert!(
        Cluster::connect(&options)
            .await
            .unwrap()
            .init()
            .await
            .unwrap()
            .is_good()
    );
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    let config = async |name: &str| {
        jetstream
            .get_stream(name)
            .await
            .unwrap()
            .cached_info()
            .config
            .clone()
    };
    for stream in ["FLUENT_EVENTS", "FLUENT_QUARANTINE"] {
        assert_eq!(config(stream).await.duplicate_window, DAY * 4, "{stream}");
    }
    assert_eq!(config("FLUENT_SAME_IDS").await.max_age, DAY * 4);
    for stream in ["FLUENT_MARKS", "FLUENT_RECONCILED"] {
        assert_eq!(config(stream).await.max_age, DAY * 30, "{stream}");
    }
}
