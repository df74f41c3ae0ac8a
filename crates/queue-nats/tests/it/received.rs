//! The keys of received events come from headers: comparing them with Fluent's log reads no
//! bodies.

use fluent_queue_nats::JetStream;
use std::sync::Arc;

use event_model::{Bytes, FluentKey, Timestamp};
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::{Intake, Lifecycle, Position, ReceivedQuery};

use crate::joining::{open, world};

const ALL: ReceivedQuery = ReceivedQuery {
    from: Timestamp::UNIX_EPOCH,
    until: Timestamp::MAX,
    after: Position::START,
    limit: 1000,
};

async fn opened() -> (Servers, async_nats::jetstream::Context, Arc<JetStream>) {
    let (servers, options) = world().await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    let queue = open(&options).await;
    (servers, jetstream, queue)
}

/// Stores the second message once more, at the end of the stream and changed.
async fn stored_anew(
    jetstream: &async_nats::jetstream::Context,
    without: &str,
    body: impl FnOnce(Bytes) -> Bytes,
) {
    let stream = jetstream.get_stream("FLUENT_EVENTS").await.unwrap();
    let second = stream.get_raw_message(2).await.unwrap();
    let mut headers = async_nats::HeaderMap::new();
    for (name, values) in second.headers.iter() {
        if ![without, "Nats-Msg-Id"].contains(&name.as_ref()) {
            headers.insert(name.clone(), values[0].clone());
        }
    }
    let body = body(second.payload);
    jetstream
        .publish_with_headers(second.subject, headers, body)
        .await
        .unwrap()
        .await
        .unwrap();
    stream.delete_message(2).await.unwrap();
}

async fn publish(queue: &JetStream, references: &[&str]) {
    for reference in references {
        queue.publish(event("E", reference)).await.unwrap();
    }
}

fn at(sequence: u64, reference: &str) -> (Position, FluentKey) {
    (
        Position::new(0, sequence).unwrap(),
        event("E", reference).fluent_key(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_is_read_to_know_what_came() {
    let (_servers, jetstream, queue) = opened().await;
    publish(&queue, &["a", "b", "c"]).await;
    stored_anew(&jetstream, "", |_| "not the body that it was".into()).await;
    let history = queue.stores().history();
    let whole = history.received(ALL).await.unwrap().events;
    let whole: Vec<_> = whole
        .iter()
        .map(|(position, _)| position.sequence())
        .collect();
    assert_eq!(whole, [1, 3], "one can't be read");
    let keys = history.received_keys(ALL).await.unwrap();
    assert_eq!(keys.keys, [at(1, "a"), at(3, "c"), at(4, "b")]);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_stored_is_read_whole() {
    let (_servers, jetstream, queue) = opened().await;
    publish(&queue, &["a", "b", "c"]).await;
    stored_anew(&jetstream, "fluent-log-key", |body| body).await;
    publish(&queue, &["d"]).await;
    let keys = queue
        .stores()
        .history()
        .received_keys(ALL)
        .await
        .unwrap()
        .keys;
    assert_eq!(keys, [at(1, "a"), at(3, "c"), at(4, "b"), at(5, "d")]);
    queue.close().await;
}
