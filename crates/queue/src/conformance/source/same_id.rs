//! Claims of events that came with one key and two bodies.

use std::time::Duration;

use event_model::{Event, EventId, Timestamp};

use crate::Source;
use crate::conformance::Harness;
use crate::conformance::samples::{event, event_of, publish};
use crate::same_id::{Claim, GrantedClaim};

/// Two events with one id of Fluent's and one name.
fn two() -> (Event, Event) {
    let of = |status: &str| {
        let body = format!(
            r#"{{"id":"E-a","name":"E","accountId":"ACME","retailerId":"1","entityType":"ORDER","entityRef":"a","entityStatus":"{status}"}}"#
        );
        event_of(body)
    };
    (of("BOOKED"), of("SHIPPED"))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).expect("a time")
}

/// Asks at this second, for a minute.
async fn ask(source: &dyn Source, route: &str, event: &Event, second: i64) -> Claim {
    let times = (at(second), at(second + 60));
    source
        .claim_same_id(event.fluent_key(), route, event.id(), times)
        .await
        .expect("an answer")
}

fn attempted(other: &Event, until: i64) -> Claim {
    Claim::Attempted {
        other: other.id(),
        until: at(until),
    }
}

/// Asks, and expects to be granted the claim.
async fn granted(
    source: &dyn Source,
    route: &str,
    event: &Event,
    second: i64,
    why: &str,
) -> GrantedClaim {
    match ask(source, route, event, second).await {
        Claim::Granted(granted) => granted,
        other => panic!("{why}: {other:?}"),
    }
}

async fn release(source: &dyn Source, route: &str, event: &Event, granted: GrantedClaim) {
    source
        .release_same_id(event.fluent_key(), route, event.id(), granted)
        .await
        .expect("release");
}

async fn delivered(source: &dyn Source, route: &str, event: &Event) {
    source
        .note_same_id_delivered(event.fluent_key(), route, event.id())
        .await
        .expect("note");
}

pub(super) async fn of_two_with_one_id_one_is_attempted_and_never_kept_back_by_itself(
    harness: &dyn Harness,
) {
    let queue = harness.open().await;
    let (first, second) = two();
    granted(queue.source(), "r", &first, 0, "nobody asked before").await;
    assert_eq!(
        ask(queue.source(), "r", &second, 10).await,
        attempted(&first, 60)
    );
    granted(queue.source(), "other", &second, 10, "a route of its own").await;
    // The process crashes between claiming and settling: the event comes again.
    let queue = harness.crash(queue).await;
    let source = queue.source();
    let old = granted(source, "r", &first, 20, "a retry of the same").await;
    assert_eq!(
        ask(source, "r", &second, 70).await,
        attempted(&first, 80),
        "claimed anew"
    );
    // The event never comes again, since it became a dead letter.
    let own = granted(source, "r", &second, 81, "the claim has run out").await;
    release(source, "r", &first, old).await;
    assert_eq!(
        ask(source, "r", &first, 82).await,
        attempted(&second, 141),
        "not its own to release"
    );
    // The attempt was given up for lost, and the next attempt claims the event.
    let next = granted(source, "r", &second, 83, "a retry of the same").await;
    release(source, "r", &second, own).await;
    assert_eq!(
        ask(source, "r", &first, 84).await,
        attempted(&second, 143),
        "the next goes on"
    );
    release(source, "r", &second, next).await;
    assert_eq!(
        source
            .same_id_delivered(first.fluent_key(), "r")
            .await
            .expect("an answer"),
        None
    );
    granted(
        source,
        "r",
        &first,
        -3600,
        "the other has failed, by anybody's clock",
    )
    .await;
    delivered(source, "r", &second).await;
    let queue = harness.crash(queue).await;
    let source = queue.source();
    assert_eq!(
        ask(source, "r", &first, 999).await,
        Claim::Delivered(second.id())
    );
    let found = source
        .same_id_delivered(first.fluent_key(), "r")
        .await
        .expect("an answer");
    assert_eq!(found, Some(second.id()));
    let again = granted(source, "r", &second, 999, "delivered, and not settled").await;
    release(source, "r", &second, again).await;
    assert_eq!(
        ask(source, "r", &first, 999).await,
        Claim::Delivered(second.id()),
        "it stays so"
    );
    publish(&queue, &["b"]).await;
    granted(source, "r", &event("E", "b"), 999, "another id").await;
}

pub(super) async fn of_many_that_ask_at_once_one_is_attempted(harness: &dyn Harness) {
    let queue = harness.open().await;
    let source = queue.source();
    let (one, _) = two();
    let ids: Vec<_> = (0_u8..8)
        .map(|number| EventId::of(event_model::Environment::Sandbox, &[number]))
        .collect();
    let asking = ids
        .iter()
        .map(|id| source.claim_same_id(one.fluent_key(), "r", *id, (at(0), at(60))));
    let answers = futures::future::join_all(asking).await;
    let granted = answers
        .iter()
        .filter(|answer| matches!(answer, Ok(Claim::Granted(_))))
        .count();
    assert_eq!(granted, 1, "{answers:?}");
    // A claim by a clock that is far ahead keeps nobody back for ever.
    let ahead = at(60) + Duration::from_hours(24 * 365);
    source
        .claim_same_id(one.fluent_key(), "s", ids[0], (ahead, ahead))
        .await
        .expect("an answer");
    let answer = source
        .claim_same_id(one.fluent_key(), "s", ids[1], (at(0), at(60)))
        .await;
    assert!(matches!(answer, Ok(Claim::Granted(_))), "{answer:?}");
}
