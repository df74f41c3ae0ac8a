//! Retries: which deliveries come again, and when.

use futures::future::join_all;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;
use tokio::time::timeout;

use crate::conformance::samples::{
    consumer, event, finish, nothing_before, one, publish, reference, settle,
};
use crate::conformance::{Harness, PATIENCE, Queue};
use crate::{Consumer, Disposition};

pub(super) async fn a_retry_comes_no_sooner_than_asked(harness: &dyn Harness) {
    const WAIT: Duration = Duration::from_millis(900);
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut consumer = consumer(&queue, "r").await;
    let first = one(&mut *consumer).await;
    let first_at = first.first_attempt_at;
    let asked = Instant::now();
    settle(first, Disposition::Again(WAIT)).await;
    let again = one(&mut *consumer).await;
    assert!(asked.elapsed() >= WAIT, "came after {:?}", asked.elapsed());
    assert_eq!((again.attempt, again.first_attempt_at), (2, first_at));
    settle(again, Disposition::Done).await;
}

pub(super) async fn waiting_retries_delay_nothing(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut consumer = consumer(&queue, "r").await;
    for number in 0..400 {
        publish(&queue, &[&format!("w{number}")]).await;
        settle(
            one(&mut *consumer).await,
            Disposition::Again(Duration::from_hours(1)),
        )
        .await;
    }
    publish(&queue, &["a"]).await;
    assert_eq!(finish(&mut *consumer, 1).await, ["a"]);
    nothing_before(&queue, &mut *consumer, "E", "the rest waits for an hour").await;
}

/// A delivery that fails and is due again at once must not keep new ones from the route.
pub(super) async fn due_retries_do_not_starve_what_is_new(harness: &dyn Harness) {
    const FAILING: usize = 2000;
    let queue = harness.open().await;
    let mut consumer = consumer(&queue, "r").await;
    publish_many(&queue, FAILING).await;
    let mut failed = BTreeSet::new();
    while failed.len() < FAILING {
        failed.extend(fail_some(&mut *consumer).await);
    }
    publish(&queue, &["new"]).await;
    let mut handed_out = 0;
    loop {
        let references = fail_some(&mut *consumer).await;
        handed_out += references.len();
        if references.contains("new") {
            break;
        }
        assert!(handed_out < FAILING, "it still waits behind what fails");
    }
}

/// A probe, which asks whether a destination is back, uses an event that did not fail before.
pub(super) async fn a_probe_is_a_first_attempt_where_one_waits(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut consumer = consumer(&queue, "r").await;
    publish_many(&queue, 300).await;
    let mut failed = BTreeSet::new();
    while failed.len() < 300 {
        failed.extend(fail_some(&mut *consumer).await);
    }
    for number in 0..3 {
        publish(&queue, &[&format!("new {number}")]).await;
        let mut probes = 0;
        loop {
            let mut probe = timeout(PATIENCE, consumer.next_to_probe())
                .await
                .expect("in time")
                .expect("next");
            assert_eq!(probe.len(), 1);
            let probe = probe.remove(0);
            let is_new = probe.event.name() == "E";
            settle(
                probe,
                if is_new {
                    Disposition::Done
                } else {
                    Disposition::Again(Duration::ZERO)
                },
            )
            .await;
            probes += 1;
            if is_new {
                break;
            }
            // The first may come before the queue has seen that there is a new one.
            assert!(probes < 10, "what failed is tried again and again");
        }
    }
    // If nothing else waits, the probe uses a delivery that failed.
    let probe = timeout(PATIENCE, consumer.next_to_probe())
        .await
        .expect("in time")
        .expect("next");
    assert!(probe[0].attempt > 1, "{probe:?}");
}

/// Publishes `count` events called `F`.
async fn publish_many(queue: &Queue, count: usize) {
    let events: Vec<_> = (0..count)
        .map(|number| event("F", &number.to_string()))
        .collect();
    for events in events.chunks(250) {
        let published = join_all(
            events
                .iter()
                .map(|event| queue.intake().publish(event.clone())),
        )
        .await;
        assert!(published.iter().all(Result::is_ok), "{published:?}");
    }
}

/// Has a few deliveries fail, to come again at once.
async fn fail_some(consumer: &mut dyn Consumer) -> BTreeSet<String> {
    let deliveries = timeout(PATIENCE, consumer.next(64))
        .await
        .expect("deliveries in time")
        .expect("next");
    let references = deliveries.iter().map(reference).collect();
    join_all(
        deliveries
            .into_iter()
            .map(|delivery| settle(delivery, Disposition::Again(Duration::ZERO))),
    )
    .await;
    references
}
