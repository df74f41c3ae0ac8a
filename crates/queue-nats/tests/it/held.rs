//! Leases of deliveries that were fetched and not yet handed out are extended.

use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use queue::conformance::event;
use queue::{Disposition, Lifecycle, Route, Source, StartPosition, Upstream};
use tokio::time::{Instant, sleep, timeout};

use crate::joining::{open, route, settlement, world};

const IN_TIME: Duration = Duration::from_secs(60);
/// The first lease that is tried.
const LEASE: Duration = Duration::from_secs(2);
const EVENTS: u64 = 40;

/// Takes one event after the other out of many that were sent together, for two leases. Returns
/// how often the server sent one; `None` if this process stood still for too long meanwhile.
async fn sent(lease: Duration) -> Option<u64> {
    let (servers, options) = world().await;
    let queue = open(&options).await;
    let brief = Route {
        lease,
        start: StartPosition::Beginning,
        ..route(&[])
    };
    let mut consumer = queue.subscribe(brief).await.unwrap();
    // What was requested is sent for a while after nobody waits for it.
    assert!(
        timeout(lease / 20, consumer.next(EVENTS as usize))
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
        sleep(lease / 20).await;
        let delivery = timeout(IN_TIME, consumer.next(1))
            .await
            .unwrap()
            .unwrap()
            .remove(0);
        let attempts = (delivery.attempt, delivery.deaths);
        let settled = delivery.ticket.settle(settlement(Disposition::Done)).await;
        longest = longest.max(since.elapsed());
        if longest >= lease / 2 {
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
    (longest < lease / 2).then_some(sent)
}

/// On a machine that stands still for a while it shows nothing, and is tried with a longer lease.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_to_be_taken_for_longer_than_its_lease_is_sent_once() {
    for longer in [1, 1, 2, 4, 8] {
        if let Some(sent) = sent(LEASE * longer).await {
            return assert_eq!(sent, EVENTS);
        }
    }
    panic!("this machine stands still again and again: nothing is shown");
}
