//! A route whose destination is gone fills what all routes share, and stops neither the others nor
//! itself for good.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::jetstream::Context;
use event_model::testing::event_of;
use event_model::{Event, SystemClock};
use fluent_queue_nats::{JetStream, Options, cluster::Cluster, open_stores};
use nats_server::Cluster as Servers;
use queue::conformance::event;
use queue::{
    Consumer, DeadQuery, DeadReason, Delivery, Disposition, Intake, Lifecycle, QueueError, Route,
    Source,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::joining::{open, route, settlement, world};

const IN_TIME: Duration = Duration::from_secs(120);
const BYTES: u64 = 4 << 20;
const PERMITS: usize = 4;

/// Time after which a settlement is one that waits for room.
const WAITS_FOR: Duration = Duration::from_secs(3);

/// What a stream may have, and a queue whose settled events make room soon.
async fn small() -> (Servers, Options, Arc<JetStream>, Context) {
    let (servers, mut options) = world().await;
    options.layout.bytes = BYTES;
    options.janitor_every = Duration::from_millis(100);
    options.crowded_age = Duration::ZERO;
    let made = Cluster::connect(&options).await.unwrap().init().await;
    assert!(made.unwrap().is_good());
    let queue = open(&options).await;
    let raw = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    (servers, options, queue, raw)
}

fn named(name: &str) -> Route {
    Route {
        name: name.to_owned(),
        ..route(&[name])
    }
}

/// An event that takes a hundredth of the room.
fn large(name: &str, number: usize) -> Event {
    let reference = "x".repeat(40_000);
    event_of(format!(
        r#"{{"id":"{name}-{number}","name":"{name}","accountId":"ACME","retailerId":"1","entityType":"ORDER","entityRef":"{reference}"}}"#
    ))
}

async fn bytes(raw: &Context, stream: &str) -> u64 {
    raw.get_stream(stream)
        .await
        .unwrap()
        .cached_info()
        .state
        .bytes
}

async fn publish(queue: &JetStream, event: Event) {
    let published = timeout(IN_TIME, async {
        while let Err(error) = queue.publish(event.clone()).await {
            assert!(matches!(error, QueueError::Full), "{error:?}");
            sleep(Duration::from_millis(50)).await;
        }
    });
    published.await.expect("there is room for events");
}

/// A destination that answers 404 while it is down, and whom it was told about.
#[derive(Debug, Default)]
struct Destination {
    is_up: AtomicBool,
    /// Whether the settlement of an attempt waits.
    waits: AtomicBool,
    told: Mutex<BTreeSet<String>>,
}

impl Destination {
    async fn get(self: Arc<Self>, delivery: Delivery, _permit: tokio::sync::OwnedSemaphorePermit) {
        let id = delivery.event.id().to_string();
        let is_up = self.is_up.load(Ordering::Acquire);
        let disposition = match is_up {
            true => Disposition::Done,
            false => Disposition::Again(Duration::from_secs(1)),
        };
        if is_up {
            self.told.lock().unwrap().insert(id);
        }
        let mut settling = Box::pin(delivery.ticket.settle(settlement(disposition)));
        if timeout(WAITS_FOR, &mut settling).await.is_err() {
            self.waits.store(true, Ordering::Release);
            let _ = settling.await;
        }
    }

    /// Delivers as a dispatcher does: a delivery has a permit until it is settled.
    async fn serve(self: Arc<Self>, mut consumer: Box<dyn Consumer>) {
        let permits = Arc::new(Semaphore::new(PERMITS));
        let mut attempts = JoinSet::new();
        loop {
            let first = Arc::clone(&permits).acquire_owned().await.unwrap();
            let free = 1 + permits.available_permits();
            let Ok(next) = consumer.next(free).await else {
                return;
            };
            let mut first = Some(first);
            for delivery in next {
                let permit = match first.take() {
                    Some(permit) => permit,
                    None => Arc::clone(&permits).acquire_owned().await.unwrap(),
                };
                attempts.spawn(Arc::clone(&self).get(delivery, permit));
            }
        }
    }

    async fn until_told(&self, count: usize, what: &str) {
        let began = Instant::now();
        while self.told.lock().unwrap().len() < count {
            let told = self.told.lock().unwrap().len();
            assert!(began.elapsed() < IN_TIME, "{what}: {told} of {count}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn until_blocked(&self) {
        let began = Instant::now();
        while !self.waits.load(Ordering::Acquire) {
            assert!(began.elapsed() < IN_TIME, "it never waits for room");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_fills_the_retries_stops_no_other_and_goes_on_when_its_destination_is_back() {
    const EVENTS: usize = 130;
    let (_servers, _options, queue, raw) = small().await;
    let gone: Arc<Destination> = Arc::default();
    let other: Arc<Destination> = Arc::default();
    let mut serving = JoinSet::new();
    for (name, destination) in [("GONE", &gone), ("OTHER", &other)] {
        let consumer = queue.subscribe(named(name)).await.unwrap();
        serving.spawn(Arc::clone(destination).serve(consumer));
    }
    let publishing = Arc::clone(&queue);
    serving.spawn(async move {
        for number in 0..EVENTS {
            publish(&publishing, large("GONE", number)).await;
        }
    });
    gone.until_blocked().await;
    assert!(bytes(&raw, "FLUENT_RETRIES").await > BYTES / 2);

    // It fails once, too, and is to be tried again.
    publish(&queue, event("OTHER", "a")).await;
    timeout(IN_TIME, async {
        let mut waiting = raw.get_stream("FLUENT_RETRIES").await.unwrap();
        while !other.is_up.load(Ordering::Acquire) {
            let info = waiting.info_with_subjects("fluent.retries.*.OTHER.>").await;
            let waits = futures::TryStreamExt::try_collect::<Vec<_>>(info.unwrap()).await;
            other
                .is_up
                .store(!waits.unwrap().is_empty(), Ordering::Release);
            waiting.info().await.unwrap();
        }
    })
    .await
    .expect("another route still has room to try again");
    other
        .until_told(1, "what the other route tried again")
        .await;

    gone.is_up.store(true, Ordering::Release);
    gone.until_told(EVENTS, "what waited for the destination")
        .await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_with_many_letters_leaves_room_for_those_of_others() {
    let (_servers, _options, queue, raw) = small().await;
    let mut many = queue.subscribe(named("MANY")).await.unwrap();
    let mut other = queue.subscribe(named("OTHER")).await.unwrap();
    let dead = || settlement(Disposition::Dead(DeadReason::Permanent));
    let mut waiting = None;
    let mut number = 0;
    while waiting.is_none() {
        publish(&queue, large("MANY", number)).await;
        number += 1;
        let next = timeout(IN_TIME, many.next(1)).await.unwrap().unwrap();
        let delivery = next.into_iter().next().unwrap();
        let mut settling = JoinSet::new();
        settling.spawn(delivery.ticket.settle(dead()));
        match timeout(WAITS_FOR, settling.join_next()).await {
            Ok(settled) => settled.unwrap().unwrap().unwrap(),
            Err(_) => waiting = Some(settling),
        }
    }
    assert!(bytes(&raw, "FLUENT_DEAD").await > BYTES / 2);

    publish(&queue, large("OTHER", 0)).await;
    let next = timeout(IN_TIME, other.next(1)).await.unwrap().unwrap();
    let delivery = next.into_iter().next().unwrap();
    let settled = timeout(IN_TIME, delivery.ticket.settle(dead())).await;
    settled.expect("there is room for its letter").unwrap();

    // A person works them off.
    raw.get_stream("FLUENT_DEAD")
        .await
        .unwrap()
        .purge()
        .filter("fluent.dead.MANY")
        .await
        .unwrap();
    let mut waiting = waiting.unwrap();
    let settled = timeout(IN_TIME, waiting.join_next()).await;
    let settled = settled.expect("there is room again");
    settled.unwrap().unwrap().unwrap();
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_serves_no_route_sends_no_more_again_than_has_room() {
    let (_servers, options, queue, raw) = small().await;
    let mut consumer = queue.subscribe(named("R")).await.unwrap();
    publish(&queue, event("R", "a")).await;
    let next = timeout(IN_TIME, consumer.next(1)).await.unwrap().unwrap();
    let delivery = next.into_iter().next().unwrap();
    let dead = settlement(Disposition::Dead(DeadReason::Permanent));
    delivery.ticket.settle(dead).await.unwrap();
    for number in 0..(BYTES / 100_000) {
        let subject = format!("fluent.retries.waiting.R.{number}.0");
        let sent = raw.publish(subject, vec![b'x'; 100_000].into()).await;
        sent.unwrap().await.unwrap();
    }
    let stores = open_stores(&options, Arc::new(SystemClock)).await.unwrap();
    let query = || DeadQuery {
        limit: 9,
        ..DeadQuery::default()
    };
    let letters = stores.dead_letters();
    let letter = letters.list(query()).await.unwrap().remove(0);
    let answers = letters.redrive(&[letter.id], None).await;
    assert!(
        matches!(answers[..], [Err(QueueError::Full)]),
        "{answers:?}"
    );
    assert_eq!(letters.list(query()).await.unwrap().len(), 1);
    queue.close().await;
}
