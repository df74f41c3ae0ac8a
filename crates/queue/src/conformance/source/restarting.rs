//! Deliveries as the next process finds them, after a crash or a stop.

use std::time::Duration;

use crate::conformance::Harness;
use crate::conformance::samples::{
    consumer, event, eventually, finish, nothing_before, one, publish, reference, settle,
};
use crate::{DeadQuery, DeadReason, Disposition};

pub(super) async fn everything_survives_a_crash(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a", "b", "c"]).await;
    finish(&mut *consumer(&queue, "r").await, 1).await;
    let before = queue.upstream().horizon().await.expect("horizon");
    let queue = harness.crash(queue).await;
    assert_eq!(queue.upstream().horizon().await.expect("horizon"), before);
    assert!(
        queue
            .intake()
            .publish(event("E", "b"))
            .await
            .expect("publish again")
            .duplicate
    );
    assert_eq!(
        finish(&mut *consumer(&queue, "r").await, 2).await,
        ["b", "c"]
    );
}

pub(super) async fn a_crash_in_flight_is_counted(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let held = one(&mut *consumer(&queue, "r").await).await;
    let queue = harness.crash(queue).await;
    drop(held);
    let again = one(&mut *consumer(&queue, "r").await).await;
    assert_eq!((again.attempt, again.deaths), (2, 1));
    let queue = harness.crash(queue).await;
    drop(again);
    let third = one(&mut *consumer(&queue, "r").await).await;
    assert_eq!((third.attempt, third.deaths), (3, 2));
    settle(third, Disposition::Done).await;
}

pub(super) async fn what_died_alone_is_a_dead_letter(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["bad", "good"]).await;
    let mut before = consumer(&queue, "r").await;
    let mut alone = one(&mut *before).await;
    let beside = one(&mut *before).await;
    assert_eq!(reference(&alone), "bad");
    alone.ticket.mark_exclusive().await.expect("alone");
    let queue = harness.crash(queue).await;
    drop((alone, beside));
    let mut after = consumer(&queue, "r").await;
    assert_eq!(finish(&mut *after, 1).await, ["good"]);
    nothing_before(&queue, &mut *after, "E", "the other is dead").await;
    // The queue writes it by itself, and nobody waits for that.
    eventually("it is a dead letter", async || {
        let query = DeadQuery {
            limit: 10,
            ..DeadQuery::default()
        };
        let letters = queue.stores().dead_letters().list(query).await;
        let letters = letters.expect("list");
        letters
            .iter()
            .map(|letter| letter.reason)
            .eq([DeadReason::Crash])
    })
    .await;
}

pub(super) async fn what_is_accompanied_again_is_not_blamed(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["slow"]).await;
    let mut delivery = one(&mut *consumer(&queue, "r").await).await;
    delivery.ticket.mark_exclusive().await.expect("alone");
    delivery.ticket.mark_shared().await.expect("accompanied");
    let queue = harness.crash(queue).await;
    drop(delivery);
    assert_eq!(finish(&mut *consumer(&queue, "r").await, 1).await, ["slow"]);
}

pub(super) async fn what_survived_alone_is_a_suspect_no_longer(harness: &dyn Harness) {
    let mut queue = harness.open().await;
    publish(&queue, &["a"]).await;
    for _ in 0..2 {
        let held = one(&mut *consumer(&queue, "r").await).await;
        queue = harness.crash(queue).await;
        drop(held);
    }
    let mut r = consumer(&queue, "r").await;
    let mut suspect = one(&mut *r).await;
    assert_eq!((suspect.attempt, suspect.deaths), (3, 2));
    // A run beside others proves nothing.
    settle(suspect, Disposition::Again(Duration::ZERO)).await;
    suspect = one(&mut *r).await;
    assert_eq!((suspect.attempt, suspect.deaths), (4, 2));
    suspect.ticket.mark_exclusive().await.expect("alone");
    settle(suspect, Disposition::Again(Duration::ZERO)).await;
    let cleared = one(&mut *r).await;
    assert_eq!((cleared.attempt, cleared.deaths), (5, 0));
    settle(cleared, Disposition::Done).await;
}

pub(super) async fn what_survived_alone_is_cleared_though_it_is_accompanied_when_it_is_settled(
    harness: &dyn Harness,
) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let held = one(&mut *consumer(&queue, "r").await).await;
    let queue = harness.crash(queue).await;
    drop(held);
    let mut r = consumer(&queue, "r").await;
    let mut suspect = one(&mut *r).await;
    assert_eq!((suspect.attempt, suspect.deaths), (2, 1));
    suspect.ticket.mark_exclusive().await.expect("alone");
    suspect.ticket.mark_shared().await.expect("accompanied");
    settle(suspect, Disposition::Again(Duration::ZERO)).await;
    let cleared = one(&mut *r).await;
    assert_eq!((cleared.attempt, cleared.deaths), (3, 0));
    settle(cleared, Disposition::Done).await;
}

pub(super) async fn what_waited_for_its_turn_has_not_died(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut held = one(&mut *consumer(&queue, "r").await).await;
    held.ticket.mark_waiting().await.expect("waits");
    let queue = harness.crash(queue).await;
    drop(held);
    let mut waited = one(&mut *consumer(&queue, "r").await).await;
    assert_eq!(
        (waited.attempt, waited.deaths),
        (1, 0),
        "it had not begun when the process died"
    );
    waited.ticket.mark_waiting().await.expect("waits again");
    waited.ticket.mark_shared().await.expect("begins");
    let queue = harness.crash(queue).await;
    drop(waited);
    let died = one(&mut *consumer(&queue, "r").await).await;
    assert_eq!((died.attempt, died.deaths), (2, 1), "it had begun");
    settle(died, Disposition::Done).await;
}

pub(super) async fn what_was_given_back_alone_is_not_blamed(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    let mut given = one(&mut *consumer(&queue, "r").await).await;
    given.ticket.mark_exclusive().await.expect("alone");
    drop(given);
    let held = one(&mut *consumer(&queue, "r").await).await;
    assert_eq!((held.attempt, held.deaths), (1, 0));
    let queue = harness.crash(queue).await;
    drop(held);
    let again = one(&mut *consumer(&queue, "r").await).await;
    assert_eq!(
        (again.attempt, again.deaths),
        (2, 1),
        "it was not alone when the process died"
    );
    settle(again, Disposition::Done).await;
}

pub(super) async fn a_route_removed_and_back_goes_on(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    finish(&mut *consumer(&queue, "r").await, 1).await;
    let queue = harness.crash(queue).await;
    // A run of the process without the route.
    publish(&queue, &["b"]).await;
    finish(&mut *consumer(&queue, "s").await, 2).await;
    let queue = harness.crash(queue).await;
    assert_eq!(finish(&mut *consumer(&queue, "r").await, 1).await, ["b"]);
}

pub(super) async fn waiting_retries_and_dead_letters_survive(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a", "b"]).await;
    let mut before = consumer(&queue, "r").await;
    settle(
        one(&mut *before).await,
        Disposition::Again(Duration::from_secs(1)),
    )
    .await;
    settle(
        one(&mut *before).await,
        Disposition::Dead(DeadReason::Permanent),
    )
    .await;
    let queue = harness.crash(queue).await;
    let mut after = consumer(&queue, "r").await;
    let again = one(&mut *after).await;
    assert_eq!(
        (reference(&again).as_str(), again.attempt, again.deaths),
        ("a", 2, 0)
    );
    settle(again, Disposition::Done).await;
    let counts = queue.stores().dead_letters().count().await.expect("count");
    assert_eq!(counts, [("r".to_owned(), 1)]);
}

pub(super) async fn a_closed_queue_comes_back_without_deaths(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a"]).await;
    drop(one(&mut *consumer(&queue, "r").await).await);
    queue.lifecycle().close().await;
    assert!(
        queue.intake().publish(event("E", "b")).await.is_err(),
        "a closed queue takes nothing"
    );
    let queue = harness.crash(queue).await;
    let again = one(&mut *consumer(&queue, "r").await).await;
    assert_eq!((again.attempt, again.deaths), (1, 0));
    settle(again, Disposition::Done).await;
}

pub(super) async fn closing_in_the_middle_leaves_nothing_in_flight(harness: &dyn Harness) {
    let mut queue = harness.open().await;
    for round in 0..10_u64 {
        publish(&queue, &[&format!("m{round}")]).await;
        let mut consumer = consumer(&queue, "r").await;
        let _ = tokio::time::timeout(Duration::from_micros(round * 150), consumer.next(4)).await;
        drop(consumer);
        queue.lifecycle().close().await;
        queue = harness.crash(queue).await;
        let states = queue.stores().routes().await.expect("routes");
        assert!(
            states.iter().all(|state| state.in_flight == 0),
            "{states:?}"
        );
    }
    let mut consumer = consumer(&queue, "r").await;
    for _ in 0..10 {
        let delivery = one(&mut *consumer).await;
        assert_eq!(delivery.deaths, 0);
        settle(delivery, Disposition::Done).await;
    }
}
