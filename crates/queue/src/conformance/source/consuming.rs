//! Deliveries, leases and tickets.

use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;
use tokio::time::timeout;

use crate::conformance::samples::{
    consumer, event, finish, nothing_before, one, publish, reference, settle, settlement,
};
use crate::conformance::{Harness, LEASE};
use crate::{DeadQuery, DeadReason, Disposition, QueueError, Settlement};

pub(super) async fn a_published_event_is_delivered_whole(harness: &dyn Harness) {
    let queue = harness.open().await;
    let receipt = queue
        .intake()
        .publish(event("E", "a"))
        .await
        .expect("publish");
    let horizon = queue.upstream().horizon().await.expect("horizon");
    assert_eq!(
        (receipt.duplicate, receipt.position, &receipt.epoch),
        (false, horizon.last, &horizon.epoch)
    );

    let delivery = one(&mut *consumer(&queue, "r").await).await;
    assert_eq!(*delivery.event, event("E", "a"));
    assert_eq!(
        (delivery.attempt, delivery.redrive, delivery.deaths),
        (1, 0, 0)
    );
    assert_eq!(delivery.position, receipt.position);
    settle(delivery, Disposition::Done).await;
}

pub(super) async fn a_settled_delivery_is_over(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut consumer = consumer(&queue, "r").await;
    assert_eq!(finish(&mut *consumer, 1).await, ["a"]);
    tokio::time::sleep(LEASE).await;
    // The next delivery is a later event.
    publish(&queue, &["b"]).await;
    let next = one(&mut *consumer).await;
    assert_eq!(
        (reference(&next).as_str(), next.attempt),
        ("b", 1),
        "the other was settled"
    );
    settle(next, Disposition::Done).await;
    nothing_before(&queue, &mut *consumer, "E", "both were settled").await;
}

pub(super) async fn routes_do_not_share_and_consumers_of_one_do(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut one_r = consumer(&queue, "r").await;
    let mut two_r = consumer(&queue, "r").await;
    let mut s = consumer(&queue, "s").await;
    publish(&queue, &["a", "b", "c", "d"]).await;
    let (mut some, rest, all) = tokio::join!(
        finish(&mut *one_r, 2),
        finish(&mut *two_r, 2),
        finish(&mut *s, 4)
    );
    some.extend(rest);
    some.sort();
    assert_eq!(
        (some, all.clone()),
        (all, vec!["a".into(), "b".into(), "c".into(), "d".into()])
    );
}

pub(super) async fn no_more_than_the_permits_are_handed_out(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut consumer = consumer(&queue, "r").await;
    publish(&queue, &["a", "b", "c", "d", "e"]).await;
    let mut seen = 0;
    while seen < 5 {
        let deliveries = consumer.next(2).await.expect("next");
        assert!((1..=2).contains(&deliveries.len()));
        seen += deliveries.len();
        for delivery in deliveries {
            settle(delivery, Disposition::Done).await;
        }
    }
}

pub(super) async fn a_dropped_ticket_comes_back_and_is_no_attempt(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut consumer = consumer(&queue, "r").await;
    for _ in 0..3 {
        let dropped = one(&mut *consumer).await;
        assert_eq!(
            (
                reference(&dropped).as_str(),
                dropped.attempt,
                dropped.deaths
            ),
            ("a", 1, 0)
        );
        drop(dropped);
    }
    settle(
        one(&mut *consumer).await,
        Disposition::Again(Duration::ZERO),
    )
    .await;
    drop(one(&mut *consumer).await);
    let second = one(&mut *consumer).await;
    assert_eq!(
        (second.attempt, second.deaths),
        (2, 0),
        "the one that was settled counts"
    );
    settle(second, Disposition::Done).await;
}

pub(super) async fn an_expired_lease_goes_to_somebody_else(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut slow = consumer(&queue, "r").await;
    let mut other = consumer(&queue, "r").await;
    let began = Instant::now();
    let held = one(&mut *slow).await;
    let again = one(&mut *other).await;
    assert!(
        began.elapsed() >= LEASE,
        "the lease was kept for {:?}",
        began.elapsed()
    );
    assert_eq!(again.attempt, 2);
    let late = held
        .ticket
        .settle(settlement(Disposition::Done))
        .await
        .expect_err("too late");
    assert!(matches!(late.source, QueueError::LeaseLost), "{late:?}");
    drop(late);
    settle(again, Disposition::Done).await;
    drop(other);
    nothing_before(&queue, &mut *slow, "E", "it was settled").await;
}

pub(super) async fn progress_keeps_a_lease(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut slow = consumer(&queue, "r").await;
    let mut other = consumer(&queue, "r").await;
    let mut held = one(&mut *slow).await;
    let began = Instant::now();
    while began.elapsed() < LEASE * 3 {
        let next = timeout(LEASE / 3, other.next(1)).await;
        assert!(next.is_err(), "held, but handed out: {next:?}");
        held.ticket.progress().await.expect("progress");
    }
    let said = Instant::now();
    held.ticket.progress().await.expect("progress");
    let again = one(&mut *other).await;
    assert!(
        said.elapsed() >= LEASE,
        "it begins anew, whole: {:?}",
        said.elapsed()
    );
    drop(held);
    settle(again, Disposition::Done).await;
}

pub(super) async fn only_attempts_that_asked_the_destination_are_counted_as_such(
    harness: &dyn Harness,
) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut before = consumer(&queue, "r").await;
    let again = |asked| Settlement {
        asked,
        ..settlement(Disposition::Again(Duration::ZERO))
    };
    drop(one(&mut *before).await);
    for (asked, expected) in [(true, 0), (false, 1), (true, 1)] {
        let delivery = one(&mut *before).await;
        assert_eq!(delivery.asked, expected);
        delivery.ticket.settle(again(asked)).await.expect("settle");
    }
    let in_flight = one(&mut *before).await;
    assert_eq!(
        (in_flight.attempt, in_flight.asked),
        (4, 2),
        "what was given back is no attempt"
    );
    let queue = harness.crash(queue).await;
    drop(in_flight);
    let mut after = consumer(&queue, "r").await;
    let last = one(&mut *after).await;
    assert_eq!(
        (last.attempt, last.deaths, last.asked),
        (5, 1, 2),
        "what died did not end"
    );
    settle(last, Disposition::Dead(DeadReason::Exhausted)).await;
    let letters = queue.stores().dead_letters();
    let query = DeadQuery {
        limit: 1,
        ..DeadQuery::default()
    };
    let letter = letters.list(query).await.expect("list").remove(0);
    assert!(
        letters
            .redrive(&[letter.id], None)
            .await
            .iter()
            .all(Result::is_ok)
    );
    let redriven = one(&mut *after).await;
    assert!(redriven.redrive > 0);
    assert_eq!(
        (redriven.attempt, redriven.asked),
        (1, 0),
        "a redrive begins anew"
    );
    settle(redriven, Disposition::Done).await;
}

/// The first consumer's request may be on its way when it stops asking, because its subscriber
/// left or its breaker opened.
pub(super) async fn what_nobody_asks_for_any_more_goes_to_somebody_else(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut first = consumer(&queue, "r").await;
    let mut second = consumer(&queue, "r").await;
    assert!(
        timeout(LEASE / 3, first.next(4)).await.is_err(),
        "there is nothing"
    );
    publish(&queue, &["a", "b"]).await;
    for _ in 0..2 {
        let delivery = one(&mut *second).await;
        // Had the first one kept them, these would be attempts of its own that came to nothing.
        assert_eq!(
            (delivery.attempt, delivery.deaths),
            (1, 0),
            "nobody attempted it"
        );
        settle(delivery, Disposition::Done).await;
    }
}

pub(super) async fn a_cancelled_next_loses_nothing(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut consumer = consumer(&queue, "r").await;
    let mut expected = Vec::new();
    for number in 0..50_u64 {
        let reference = format!("c{number:02}");
        publish(&queue, &[&reference]).await;
        expected.push(reference);
        let _ = timeout(Duration::from_micros(number * 20), consumer.next(4)).await;
    }
    let mut seen = BTreeSet::new();
    while seen.len() < expected.len() {
        let delivery = one(&mut *consumer).await;
        seen.insert(reference(&delivery));
        settle(delivery, Disposition::Done).await;
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
}
