//! Leases of deliveries that were fetched and not yet handed out are extended.

use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use queue::conformance::event;
use queue::{Disposition, Lifecycle, Route, Source, StartPosition, Upstream};
use tokio::time::{Instant, sleep, timeout};

use crate::joining::{open, route, settlement, world};

const IN_TIME: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(2);
const EVENTS: u64 = 40;

/// Takes one event after the other out of many that were sent together, for two leases. Returns
/// how often the server sent one; `None` if this process stood still for too long meanwhile.
async fn sent() -> Option<u64> {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let brief = Route {
        lease: LEASE,
        start: StartPosition::Beginning,
        ..route(&[])
    };
    let mut consumer = queue.subscribe(brief).await.unwrap();
    // What was requested is sent for a while after nobody waits for it.
    assert!(
        timeout(LEASE / 20, consumer.next(EVENTS as usize))
            .await
            .is_err()
    );
    let events: Vec<_> = (0..EVENTS)
        .map(|number| event("E", &number.to_string()))
        .collect();
    assert!(queue.publish_many(&events).await.error.is_none());
    let mut longest = Duration::ZERO;
    for _ in 0..EVENTS {
        let since = Instant::now();
        sleep(LEASE / 20).await;
        let delivery = timeout(IN_TIME, consumer.next(1))
            .await
            .unwrap()
            .unwrap()
            .remove(0);
        let attempts = (delivery.attempt, delivery.deaths);
        let settled = delivery.ticket.settle(settlement(Disposition::Done)).await;
        longest = longest.max(since.elapsed());
        if longest >= LEASE / 2 {
            break;
        }
        assert_eq!(attempts, (1, 0));
        settled.unwrap();
    }
    let jetstream = async_nats::jetstream::new(async_nats::connect(servers.urls()).await.unwrap());
    let mut raw: PullConsumer = jetstream
        .get_consumer_from_stream("r", "FLUENT_EVENTS")
        .await
        .unwrap();
    let sent = raw.info().await.unwrap().delivered.consumer_sequence;
    queue.close().await;
    (longest < LEASE / 2).then_some(sent)
}

/// On a machine that often stands still for a second the test shows nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_to_be_taken_for_longer_than_its_lease_is_sent_once() {
    for _ in 0..10 {
        if let Some(sent) = sent().await {
            return assert_eq!(sent, EVENTS);
        }
    }
}
