//! Retention: what it may remove, and what it must leave.

use std::time::Duration;

use super::letters::letters;
use crate::conformance::samples::{consumer, finish, old_event, one, settle};
use crate::conformance::{Harness, PATIENCE, QUIET, Queue};
use crate::{DeadReason, Disposition};

async fn check_kept(queue: &Queue, reference: &str) -> bool {
    !queue
        .stores()
        .history()
        .find(reference, 1)
        .await
        .expect("find")
        .is_empty()
}

/// Waits until retention has removed what every route has settled.
async fn goes(queue: &Queue, reference: &str) {
    let gone = async {
        while check_kept(queue, reference).await {
            tokio::time::sleep(QUIET).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone)
        .await
        .unwrap_or_else(|_| panic!("{reference} is kept for ever"));
}

pub(super) async fn retention_removes_only_what_every_route_has_settled(harness: &dyn Harness) {
    let queue = harness.open_forgetful().await;
    let known_since = queue
        .stores()
        .history()
        .complete_since()
        .await
        .expect("complete since");
    let mut r = consumer(&queue, "r").await;
    let mut s = consumer(&queue, "s").await;
    for reference in ["settled", "unread", "dead", "last", "waiting"] {
        queue
            .intake()
            .publish(old_event(reference))
            .await
            .expect("publish");
        let delivery = one(&mut *r).await;
        let disposition = match reference {
            "dead" => Disposition::Dead(DeadReason::Permanent),
            "waiting" => Disposition::Again(Duration::from_hours(1)),
            _ => Disposition::Done,
        };
        settle(delivery, disposition).await;
    }
    finish(&mut *s, 1).await;
    goes(&queue, "settled").await;
    let since = queue
        .stores()
        .history()
        .complete_since()
        .await
        .expect("complete since");
    assert!(
        since >= known_since && since > old_event("settled").received_at(),
        "{since}"
    );
    tokio::time::sleep(QUIET * 6).await;
    for reference in ["dead", "waiting", "unread", "last"] {
        assert!(
            check_kept(&queue, reference).await,
            "{reference} is still needed"
        );
    }
    // A removed event is still known: ids outlive bodies.
    assert!(
        queue
            .intake()
            .publish(old_event("settled"))
            .await
            .expect("publish again")
            .duplicate
    );
    assert_eq!(
        finish(&mut *s, 4).await,
        ["dead", "last", "unread", "waiting"]
    );
    // Only a letter and a waiting delivery keep the rest.
    goes(&queue, "last").await;
    tokio::time::sleep(QUIET * 6).await;
    let letter = letters(&queue).await.remove(0);
    queue
        .stores()
        .dead_letters()
        .redrive(&[letter.id], None)
        .await
        .remove(0)
        .expect("redrive");
    assert_eq!(finish(&mut *r, 1).await, ["dead"]);
    let waiting = old_event("waiting");
    assert_eq!(
        queue
            .stores()
            .retry_now("r", waiting.id())
            .await
            .expect("retry"),
        1
    );
    let again = one(&mut *r).await;
    assert_eq!(again.event.body(), waiting.body());
    settle(again, Disposition::Done).await;
}

pub(super) async fn one_event_that_keeps_failing_keeps_no_later_one(harness: &dyn Harness) {
    let queue = harness.open_forgetful().await;
    let mut r = consumer(&queue, "r").await;
    for reference in ["failing", "after"] {
        let published = queue.intake().publish(old_event(reference)).await;
        published.expect("publish");
    }
    settle(
        one(&mut *r).await,
        Disposition::Again(Duration::from_hours(1)),
    )
    .await;
    assert_eq!(finish(&mut *r, 1).await, ["after"]);
    // Some queue may keep the newest event for a while.
    let published = queue.intake().publish(old_event("newest")).await;
    published.expect("publish");
    assert_eq!(finish(&mut *r, 1).await, ["newest"]);
    goes(&queue, "after").await;
    let failing = old_event("failing");
    let retried = queue.stores().retry_now("r", failing.id()).await;
    assert_eq!(retried.expect("retry"), 1);
    let again = one(&mut *r).await;
    assert_eq!(again.event.body(), failing.body());
    settle(again, Disposition::Done).await;
    goes(&queue, "failing").await;
}
