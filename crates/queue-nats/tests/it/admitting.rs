//! An event whose id the server knows, but which it has lost, is published again, whoever asks.

use fluent_queue_nats::JetStream;
use std::sync::Arc;
use std::time::Duration;

use event_model::{Algorithm, Event, Headers, Proof, Timestamp};
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::{
    Consumer, Disposition, Intake, Lifecycle, Quarantined, RejectedWebhook, Route, RouteFilter,
    Source, StartPosition,
};

use crate::joining::{open, settlement, world};

struct World {
    _servers: Servers,
    jetstream: async_nats::jetstream::Context,
    queue: Arc<JetStream>,
}

impl World {
    async fn start() -> Self {
        let (servers, options) = world().await;
        let jetstream =
            async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
        let queue = open(&options).await;
        Self {
            _servers: servers,
            jetstream,
            queue,
        }
    }

    /// Publishes `lost`, which is then in no stream, though the server knows its id. Another
    /// event comes before it: what is missing before all others counts as removed, and not as
    /// lost.
    async fn lose(&self, lost: &Event) {
        self.queue.publish(event("FIRST", "first")).await.unwrap();
        let position = self.queue.publish(lost.clone()).await.unwrap().position;
        self.remove("FLUENT_EVENTS", position.sequence()).await;
    }

    async fn remove(&self, stream: &str, sequence: u64) {
        let stream = self.jetstream.get_stream(stream).await.unwrap();
        assert!(stream.delete_message(sequence).await.unwrap());
    }

    async fn subscribe(&self) -> Box<dyn Consumer> {
        let lease = Duration::from_secs(60);
        let route = Route {
            name: "r".to_owned(),
            filter: RouteFilter::default(),
            start: StartPosition::Beginning,
            lease,
        };
        self.queue.subscribe(route).await.unwrap()
    }
}

/// Settles the next delivery, and returns the name of its event.
async fn next(consumer: &mut dyn Consumer) -> String {
    let next = tokio::time::timeout(Duration::from_secs(60), consumer.next(1)).await;
    let delivery = next.expect("nothing came").unwrap().remove(0);
    let name = delivery.event.name().to_owned();
    delivery
        .ticket
        .settle(settlement(Disposition::Done))
        .await
        .unwrap();
    name
}

fn refused(lost: &Event) -> RejectedWebhook {
    let reason = "no-key-matches".to_owned();
    let account = "ACME".to_owned();
    RejectedWebhook::stored(
        0,
        lost.body().clone(),
        Headers::default(),
        lost.received_at(),
        reason,
        account,
    )
}

fn malformed(body: &'static str) -> Quarantined {
    Quarantined {
        id: 0,
        body: body.into(),
        proof: Proof::Signed(Algorithm::Md5),
        key: "sydney_sandbox".parse().unwrap(),
        signature: "c2ln".to_owned(),
        received_at: Timestamp::UNIX_EPOCH,
        reason: "not-json".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_known_and_lost_is_admitted_anew() {
    let world = World::start().await;
    let mut consumer = world.subscribe().await;
    world.lose(&event("A", "a")).await;
    world.queue.publish(event("B", "b")).await.unwrap();
    assert_eq!(
        [next(&mut *consumer).await, next(&mut *consumer).await],
        ["FIRST", "B"],
        "A is lost"
    );
    let stores = world.queue.stores();
    assert!(
        !stores.publish_if_new(event("A", "a")).await.unwrap(),
        "it was not there"
    );
    assert!(
        stores.publish_if_new(event("A", "a")).await.unwrap(),
        "it is now"
    );
    assert!(
        world
            .queue
            .publish(event("A", "a"))
            .await
            .unwrap()
            .duplicate,
        "to a webhook too"
    );
    assert!(
        stores.publish_if_new(event("B", "b")).await.unwrap(),
        "this one was"
    );
    world.queue.publish(event("C", "c")).await.unwrap();
    assert_eq!(
        [next(&mut *consumer).await, next(&mut *consumer).await],
        ["A", "C"],
        "each once"
    );
    world.queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_webhook_goes_only_when_its_event_is_held() {
    let world = World::start().await;
    let mut consumer = world.subscribe().await;
    let hold = world.queue.stores().refused();
    hold.capture(refused(&event("A", "a"))).await.unwrap();
    world.lose(&event("A", "a")).await;
    hold.admit(1, event("A", "a")).await.unwrap();
    assert_eq!(
        [next(&mut *consumer).await, next(&mut *consumer).await],
        ["FIRST", "A"]
    );
    assert_eq!(hold.count().await.unwrap().webhooks, 0);
    world.queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_released_twice_is_delivered_once_and_what_is_lost_comes_again() {
    let world = World::start().await;
    let mut consumer = world.subscribe().await;
    let quarantine = world.queue.stores().quarantine();
    for body in ["{", "{{", "{{{"] {
        quarantine.store(malformed(body)).await.unwrap();
    }
    world.queue.publish(event("A", "a")).await.unwrap();
    world.lose(&event("B", "b")).await;
    for (id, name) in [(1, "A"), (2, "B"), (3, "C")] {
        quarantine
            .release(id, event(name, &name.to_lowercase()))
            .await
            .unwrap();
    }
    let mut came = Vec::new();
    while came.len() < 4 {
        came.push(next(&mut *consumer).await);
    }
    assert_eq!(came, ["A", "FIRST", "B", "C"]);
    world.queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_body_that_is_known_and_lost_is_kept_anew() {
    let world = World::start().await;
    let quarantine = world.queue.stores().quarantine();
    quarantine.store(malformed("{")).await.unwrap();
    world.remove("FLUENT_QUARANTINE", 1).await;
    quarantine.store(malformed("{")).await.unwrap();
    quarantine.store(malformed("{")).await.unwrap();
    assert_eq!(quarantine.list(0, 10).await.unwrap().len(), 1);
    world.queue.close().await;
}
