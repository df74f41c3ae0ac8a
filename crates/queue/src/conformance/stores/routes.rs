//! Routes that a person forgets, pauses or retries.

use event_model::{Clock, SystemClock};
use std::time::Duration;

use super::letters::letters;
use crate::conformance::samples::{
    consumer, event, eventually, finish, nothing_before, nothing_while_paused, one, publish,
    reference, settle,
};
use crate::conformance::{Harness, LEASE, QUIET, Queue};
use crate::{Consumer, DeadReason, Disposition, PAUSES_WITHIN, Pause, QueueError};

pub(super) async fn a_route_in_use_is_not_forgotten(harness: &dyn Harness) {
    let queue = harness.open().await;
    drop(consumer(&queue, "r").await);
    let states = queue.stores().routes().await.expect("routes");
    assert_eq!(
        states
            .iter()
            .map(|state| state.name.as_str())
            .collect::<Vec<_>>(),
        ["r"]
    );
    assert!(matches!(
        queue.stores().forget("r").await,
        Err(QueueError::InUse(_))
    ));
    assert!(matches!(
        queue.stores().forget("nowhere").await,
        Err(QueueError::NotFound(_))
    ));
}

/// Servers and files know deliveries by what they are about, and may remember those of a route
/// that is no more.
pub(super) async fn a_route_that_comes_back_loses_nothing_that_fails_again(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a", "b", "c"]).await;
    fail_in_every_way(&queue, Duration::from_hours(1)).await;
    let queue = harness.crash(queue).await;
    for letter in letters(&queue).await {
        let discarded = queue.stores().dead_letters().discard(&[letter.id]).await;
        assert!(matches!(discarded[..], [Ok(())]), "{discarded:?}");
    }
    eventually("the route is forgotten", async || {
        queue.stores().forget("r").await.is_ok()
    })
    .await;
    let mut r = fail_in_every_way(&queue, Duration::ZERO).await;
    let again = one(&mut *r).await;
    assert_eq!((reference(&again).as_str(), again.attempt), ("a", 2));
    settle(again, Disposition::Done).await;
    let dead: Vec<_> = letters(&queue).await;
    assert_eq!(dead.len(), 1, "{dead:?}");
}

/// Joins the route, lets `a` wait, gives `b` back and takes it again, and makes `c` a dead letter.
async fn fail_in_every_way(queue: &Queue, wait: Duration) -> Box<dyn Consumer> {
    let mut r = consumer(queue, "r").await;
    let a = one(&mut *r).await;
    let b = one(&mut *r).await;
    let c = one(&mut *r).await;
    let first = [&a, &b, &c].map(|delivery| (reference(delivery), delivery.attempt));
    assert_eq!(first, ["a", "b", "c"].map(|name| (name.to_owned(), 1)));
    drop(b);
    let again = one(&mut *r).await;
    assert_eq!((reference(&again).as_str(), again.attempt), ("b", 1));
    settle(again, Disposition::Done).await;
    settle(c, Disposition::Dead(DeadReason::Permanent)).await;
    settle(a, Disposition::Again(wait)).await;
    r
}

pub(super) async fn a_paused_route_holds_and_goes_on(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    let mut s = consumer(&queue, "s").await;
    let stores = queue.stores();
    assert!(matches!(
        stores.set_paused("nowhere", Some(&Pause::default())).await,
        Err(QueueError::NotFound(_))
    ));
    stores
        .set_paused("r", Some(&Pause::default()))
        .await
        .expect("pause");
    let paused = async || {
        let states = queue.stores().routes().await.expect("routes");
        states
            .into_iter()
            .filter(|state| state.paused)
            .map(|state| state.name)
            .collect::<Vec<_>>()
    };
    assert_eq!(paused().await, ["r"]);
    tokio::time::sleep(PAUSES_WITHIN).await;
    publish(&queue, &["a"]).await;
    finish(&mut *s, 1).await;
    nothing_while_paused(&mut *r, "it is paused").await;
    let queue = harness.crash(queue).await;
    let mut r = consumer(&queue, "r").await;
    nothing_while_paused(&mut *r, "and stays so").await;
    // A consumer is waiting already, as in a dispatcher.
    let resume = async {
        tokio::time::sleep(QUIET).await;
        queue.stores().set_paused("r", None).await.expect("resume");
    };
    let (delivery, ()) = tokio::join!(one(&mut *r), resume);
    assert_eq!(
        (delivery.attempt, delivery.deaths),
        (1, 0),
        "holding burns no attempts"
    );
    settle(delivery, Disposition::Done).await;
}

pub(super) async fn a_pause_holds_for_what_was_fetched_before(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    assert!(
        tokio::time::timeout(LEASE / 3, r.next(4)).await.is_err(),
        "there is nothing"
    );
    publish(&queue, &["a", "b", "c", "d"]).await;
    let first = one(&mut *r).await;
    settle(first, Disposition::Done).await;
    queue
        .stores()
        .set_paused("r", Some(&Pause::default()))
        .await
        .expect("pause");
    tokio::time::sleep(PAUSES_WITHIN).await;
    nothing_while_paused(&mut *r, "it is paused").await;
    queue.stores().set_paused("r", None).await.expect("resume");
    assert_eq!(finish(&mut *r, 3).await, ["b", "c", "d"]);
}

pub(super) async fn a_pause_ends_by_itself_and_says_why_it_is(harness: &dyn Harness) {
    let queue = harness.open().await;
    let mut r = consumer(&queue, "r").await;
    let until = SystemClock
        .now()
        .checked_add(PAUSES_WITHIN * 4)
        .expect("a time");
    let reason = Some("a \"deploy\"".to_owned());
    let by = Some("ops".to_owned());
    let pause = Pause {
        until: Some(until),
        reason,
        by,
    };
    queue
        .stores()
        .set_paused("r", Some(&pause))
        .await
        .expect("pause");
    let state = async || queue.stores().routes().await.expect("routes").remove(0);
    let found = state().await;
    assert_eq!((found.paused, found.pause), (true, Some(pause)));
    tokio::time::sleep(PAUSES_WITHIN).await;
    publish(&queue, &["a"]).await;
    let delivery = one(&mut *r).await;
    assert!(SystemClock.now() >= until, "not before its end");
    settle(delivery, Disposition::Done).await;
    let found = state().await;
    assert_eq!((found.paused, found.pause), (false, None));
}

pub(super) async fn what_waits_is_retried_now_when_somebody_says_so(harness: &dyn Harness) {
    let queue = harness.open().await;
    publish(&queue, &["a", "b"]).await;
    let mut r = consumer(&queue, "r").await;
    for _ in 0..2 {
        settle(
            one(&mut *r).await,
            Disposition::Again(Duration::from_hours(1)),
        )
        .await;
    }
    nothing_before(&queue, &mut *r, "E", "both wait").await;
    let stores = queue.stores();
    let a = event("E", "a").id();
    assert!(
        !matches!(stores.retry_now("nowhere", a).await, Ok(1..)),
        "of a route that there is not"
    );
    assert_eq!(stores.retry_now("r", a).await.expect("retry"), 1);
    let again = one(&mut *r).await;
    assert_eq!(
        (reference(&again).as_str(), again.attempt, again.deaths),
        ("a", 2, 0)
    );
    assert_eq!(
        stores.retry_now("r", a).await.expect("retry"),
        0,
        "it is being attempted"
    );
    settle(again, Disposition::Done).await;
    nothing_before(&queue, &mut *r, "E", "the other waits still").await;
    assert_eq!(
        stores.retry_now("r", a).await.expect("retry"),
        0,
        "it is done"
    );
}
