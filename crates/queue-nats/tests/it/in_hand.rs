//! How much memory the deliveries take that a process has in hand.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_model::{Event, EventId, StoredEvent};
use queue::conformance::event;
use queue::{Delivery, Disposition, Intake, Lifecycle, Route, Source, StartPosition};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::joining::{open, route, settlement, world};

const IN_TIME: Duration = Duration::from_secs(120);

/// Bytes of each event.
const LARGE: usize = 1 << 20;

const EVENTS: usize = 24;

fn large(number: usize) -> Event {
    of_size(&number.to_string(), LARGE)
}

fn of_size(reference: &str, bytes: usize) -> Event {
    let small = event("E", reference);
    let body = String::from_utf8(small.body().to_vec()).unwrap();
    let more = format!(r#"{{"pad":"{}","#, "x".repeat(bytes));
    let stored = StoredEvent {
        body: body.replacen('{', &more, 1).into(),
        ..small.stored().clone()
    };
    Event::restore(EventId::of(small.environment(), &stored.body), stored).unwrap()
}

/// Bytes that the routes have in hand now, and had at most.
#[derive(Debug, Default)]
struct HeldBytes {
    now: AtomicU64,
    most: AtomicU64,
}

impl HeldBytes {
    async fn settle_after_a_while(&self, deliveries: Vec<Delivery>) -> Vec<EventId> {
        let bytes = deliveries
            .iter()
            .map(|delivery| delivery.event.body().len());
        let bytes = u64::try_from(bytes.sum::<usize>()).unwrap();
        let now = self.now.fetch_add(bytes, Ordering::AcqRel) + bytes;
        self.most.fetch_max(now, Ordering::AcqRel);
        sleep(Duration::from_millis(50)).await;
        self.now.fetch_sub(bytes, Ordering::AcqRel);
        let mut ids = Vec::new();
        for Delivery { event, ticket, .. } in deliveries {
            ids.push(event.id());
            drop(event);
            ticket.settle(settlement(Disposition::Done)).await.unwrap();
        }
        ids
    }
}

/// Four routes that want sixteen large events each have no more of them in hand than one each,
/// and what fits into the bytes of the process.
#[tokio::test(flavor = "multi_thread")]
async fn routes_with_large_events_share_the_memory_of_a_process() {
    const ROUTES: u64 = 4;
    const BYTES: u64 = 4 << 20;
    let (_servers, mut options) = world().await;
    options.in_hand_bytes = BYTES;
    let publisher = open(&options).await;
    let mut published = BTreeSet::new();
    for number in 0..EVENTS {
        let event = large(number);
        published.insert(event.id());
        publisher.publish(event).await.unwrap();
    }
    let queue = open(&options).await;
    let in_hand = Arc::new(HeldBytes::default());
    let mut routes = JoinSet::new();
    for number in 0..ROUTES {
        let everything = Route {
            name: format!("r{number}"),
            start: StartPosition::Beginning,
            ..route(&[])
        };
        let mut consumer = queue.subscribe(everything).await.unwrap();
        let in_hand = Arc::clone(&in_hand);
        routes.spawn(async move {
            let delivered = Arc::new(Mutex::new(BTreeSet::new()));
            let mut settling = JoinSet::new();
            while delivered.lock().unwrap().len() < EVENTS {
                let next = timeout(Duration::from_secs(1), consumer.next(16)).await;
                let Ok(deliveries) = next else { continue };
                let (in_hand, delivered) = (Arc::clone(&in_hand), Arc::clone(&delivered));
                settling.spawn(async move {
                    let ids = in_hand.settle_after_a_while(deliveries.unwrap()).await;
                    delivered.lock().unwrap().extend(ids);
                });
            }
            settling.join_all().await;
            let delivered = delivered.lock().unwrap();
            delivered.clone()
        });
    }
    let all = timeout(IN_TIME, routes.join_all()).await;
    for delivered in all.expect("every route goes on") {
        assert_eq!(delivered, published);
    }
    let most = in_hand.most.load(Ordering::Acquire);
    let largest = u64::try_from(LARGE).unwrap() + 4096;
    assert!(most <= BYTES + ROUTES * largest, "{most} bytes at once");
    assert!(most > largest, "{most} bytes: nothing was at once");
    queue.close().await;
    publisher.close().await;
}

/// A message that is larger than any that this version writes, since somebody has allowed that, is
/// delivered, and what comes after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_larger_than_a_request_may_bring_is_delivered_all_the_same() {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let mut consumer = queue.subscribe(route(&[])).await.unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    let stream = jetstream.get_stream("FLUENT_EVENTS").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    config.max_message_size = -1;
    jetstream.update_stream(&config).await.unwrap();
    let sizes = [10, 3_500_000, 10];
    let mut published = BTreeSet::new();
    for (number, size) in sizes.into_iter().enumerate() {
        let event = of_size(&number.to_string(), size);
        published.insert(event.id());
        queue.publish(event).await.unwrap();
    }
    let mut delivered = BTreeSet::new();
    while delivered != published {
        let next = timeout(IN_TIME, consumer.next(16)).await;
        for Delivery { event, ticket, .. } in next.expect("the rest comes").unwrap() {
            delivered.insert(event.id());
            ticket.settle(settlement(Disposition::Done)).await.unwrap();
        }
    }
    queue.close().await;
}
