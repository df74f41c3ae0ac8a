//! One event of Fluent's that came with two bodies.

use std::time::Duration;

use event_model::{Event, EventId, Timestamp};

use crate::Source;
use crate::conformance::Harness;
use crate::conformance::samples::{admit, event, publish};
use crate::same_id::Claim;

/// Two of one id and name.
fn two() -> (Event, Event) {
    let of = |status: &str| {
        let body = format!(
            r#"{{"id":"E-a","name":"E","accountId":"ACME","retailerId":"1","entityType":"ORDER","entityRef":"a","entityStatus":"{status}"}}"#
        );
        admit(body.into())
    };
    (of("BOOKED"), of("SHIPPED"))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).expect("a time")
}

/// Asks at a second, for a minute.
async fn ask(source: &dyn Source, route: &str, event: &Event, second: i64) -> Claim {
    let times = (at(second), at(second + 60));
    source.claim_same_id(event.fluent_key(), route, event.id(), times).await.expect("an answer")
}

fn attempted(other: &Event, until: i64) -> Claim {
    Claim::Attempted { other: other.id(), until: at(until) }
}

async fn release(source: &dyn Source, route: &str, event: &Event, second: i64) {
    source.release_same_id(event.fluent_key(), route, event.id(), at(second)).await.expect("release");
}

async fn delivered(source: &dyn Source, route: &str, event: &Event) {
    source.note_same_id_delivered(event.fluent_key(), route, event.id()).await.expect("note");
}

pub(super) async fn of_two_with_one_id_one_is_attempted_and_never_kept_back_by_itself(harness: &dyn Harness) {
    let queue = harness.open().await;
    let (first, second) = two();
    assert_eq!(ask(queue.source(), "r", &first, 0).await, Claim::Granted);
    assert_eq!(ask(queue.source(), "r", &second, 10).await, attempted(&first, 60));
    assert_eq!(ask(queue.source(), "other", &second, 10).await, Claim::Granted, "a route of its own");
    // The process dies between claiming and settling: the event comes again.
    let queue = harness.crash(queue).await;
    assert_eq!(ask(queue.source(), "r", &first, 20).await, Claim::Granted, "a retry of the same");
    assert_eq!(ask(queue.source(), "r", &second, 70).await, attempted(&first, 80), "claimed anew");
    // It never comes again, having become a dead letter.
    assert_eq!(ask(queue.source(), "r", &second, 81).await, Claim::Granted, "the claim has run out");
    assert_eq!(ask(queue.source(), "r", &first, 82).await, attempted(&second, 141));
    release(queue.source(), "r", &first, 82).await;
    assert_eq!(ask(queue.source(), "r", &first, 82).await, attempted(&second, 141), "not its own to release");
    release(queue.source(), "r", &second, 83).await;
    assert_eq!(ask(queue.source(), "r", &first, 83).await, Claim::Granted, "the other has failed");
    delivered(queue.source(), "r", &second).await;
    release(queue.source(), "r", &second, 84).await;
    let queue = harness.crash(queue).await;
    assert_eq!(ask(queue.source(), "r", &first, 999).await, Claim::Delivered(second.id()));
    assert_eq!(ask(queue.source(), "r", &second, 999).await, Claim::Granted, "delivered, and not settled");
    publish(&queue, &["b"]).await;
    let unlike = event("E", "b");
    assert_eq!(ask(queue.source(), "r", &unlike, 999).await, Claim::Granted, "another id");
}

pub(super) async fn of_many_that_ask_at_once_one_is_attempted(harness: &dyn Harness) {
    let queue = harness.open().await;
    let source = queue.source();
    let (one, _) = two();
    let ids: Vec<_> =
        (0_u8..8).map(|number| EventId::of(event_model::Environment::Sandbox, &[number])).collect();
    let asking = ids.iter().map(|id| source.claim_same_id(one.fluent_key(), "r", *id, (at(0), at(60))));
    let answers = futures::future::join_all(asking).await;
    let granted = answers.iter().filter(|answer| matches!(answer, Ok(Claim::Granted))).count();
    assert_eq!(granted, 1, "{answers:?}");
    // A claim of a clock that is far ahead keeps nobody back for ever.
    let ahead = at(60) + Duration::from_hours(24 * 365);
    source.claim_same_id(one.fluent_key(), "s", ids[0], (ahead, ahead)).await.expect("an answer");
    let answer = source.claim_same_id(one.fluent_key(), "s", ids[1], (at(0), at(60))).await;
    assert_eq!(answer.expect("an answer"), Claim::Granted);
}
