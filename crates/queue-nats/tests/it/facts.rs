//! Facts about reconciled events, however many, leave room for those that keep the cluster
//! together.

use std::sync::Arc;

use event_model::{Environment, EventId, SystemClock, Timestamp};
use fluent_queue_nats::{JetStream, Options, cluster::Cluster};
use futures::StreamExt;
use queue::conformance::event;
use queue::facts::{reconciled_pair, set_reconciled, set_spool, spools};
use queue::{Lifecycle, QueueError, SpoolWatermark};

#[tokio::test(flavor = "multi_thread")]
async fn reconciled_events_that_fill_their_room_leave_every_other_mark_its_own() {
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
    let queue = JetStream::open(options, Arc::new(SystemClock))
        .await
        .unwrap();
    let marks = queue.stores().facts();
    let event = |number: usize| event("E", &number.to_string());
    let id = EventId::of(Environment::Sandbox, b"from the log");
    let setting = futures::stream::iter(0..5000)
        .map(async |number| set_reconciled(marks, event(number).fluent_key(), id, "").await)
        .buffered(64);
    let answers: Vec<_> = setting.collect().await;
    assert!(
        matches!(answers.last(), Some(Err(QueueError::Full))),
        "{:?}",
        answers.last()
    );

    let mark = SpoolWatermark {
        host: "here".to_owned(),
        drained_to: Timestamp::UNIX_EPOCH,
        is_closed: true,
    };
    set_spool(marks, "a", &mark).await.unwrap();
    assert_eq!(spools(marks).await.unwrap(), [("a".to_owned(), mark)]);
    let known = reconciled_pair(marks, event(0).fluent_key(), "r")
        .await
        .unwrap()
        .unwrap();
    assert_eq!((known.reconciled, known.delivered), (id, None));
    let usage = queue.stores().health().await.unwrap().usage;
    let full: Vec<_> = usage
        .iter()
        .filter(|store| store.limit.is_some_and(|limit| store.used * 10 > limit * 9))
        .collect();
    assert_eq!(
        full.iter()
            .map(|store| store.name.as_str())
            .collect::<Vec<_>>(),
        ["FLUENT_RECONCILED"]
    );
    queue.close().await;
}
