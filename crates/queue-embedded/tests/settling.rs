//! A settlement that can't be written waits: the attempt was made, and is made once.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use event_model::{SystemClock, Timestamp};
use fluent_queue_embedded::{Embedded, Options};
use queue::conformance::event;
use queue::{
    Attempt, Consumer, Delivery, Disposition, Intake, Lifecycle, MatchFields, Outcome, Route,
    Settlement, Source, StartPosition,
};
use rusqlite::Connection;
use tokio::time::timeout;

/// Longer than the writer waits for another process, more than once.
const HELD_FOR: Duration = Duration::from_secs(13);

async fn serve(path: &Path) -> (Embedded, Box<dyn Consumer>) {
    let queue = Embedded::open(Options::new(path), Arc::new(SystemClock)).unwrap();
    let route = Route {
        name: "r".to_owned(),
        filter: MatchFields::default().into(),
        start: StartPosition::Beginning,
        lease: Duration::from_secs(3),
    };
    let consumer = queue.subscribe(route).await.unwrap();
    (queue, consumer)
}

fn settlement(disposition: Disposition) -> Settlement {
    let attempt = Attempt {
        started_at: Timestamp::UNIX_EPOCH,
        took: Duration::ZERO,
        outcome: Outcome::Done,
        status: None,
        detail: None,
    };
    Settlement {
        disposition,
        asked: true,
        attempt,
    }
}

/// Holds the file like another process that writes.
fn hold(path: &Path) -> Connection {
    let other = Connection::open(path).unwrap();
    other.busy_timeout(Duration::from_secs(20)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    other
}

async fn one(consumer: &mut dyn Consumer) -> Delivery {
    let next = timeout(Duration::from_secs(60), consumer.next(1)).await;
    next.expect("it comes").unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_waits_until_the_file_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let (queue, mut consumer) = serve(&path).await;
    for reference in ["a", "b"] {
        queue.publish(event("E", reference)).await.unwrap();
    }
    let first = one(&mut *consumer).await;
    let other = hold(&path);
    let mut settling = pin!(first.ticket.settle(settlement(Disposition::Done)));
    let waited = timeout(HELD_FOR, settling.as_mut()).await;
    assert!(waited.is_err(), "it waits: {waited:?}");
    other.execute_batch("COMMIT").unwrap();
    settling.await.unwrap();
    let next = one(&mut *consumer).await;
    assert_eq!(
        next.event.fields().entity_ref.as_deref(),
        Some("b"),
        "the first had its effect once"
    );
    next.ticket
        .settle(settlement(Disposition::Done))
        .await
        .unwrap();
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_has_ended_and_is_given_back_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let (queue, mut consumer) = serve(&path).await;
    queue.publish(event("E", "a")).await.unwrap();
    let first = one(&mut *consumer).await;
    let other = hold(&path);
    let settled = timeout(
        HELD_FOR / 2,
        first
            .ticket
            .settle(settlement(Disposition::Again(Duration::ZERO))),
    );
    // The caller waits no longer, as at a hard stop.
    assert!(settled.await.is_err());
    other.execute_batch("COMMIT").unwrap();
    let again = one(&mut *consumer).await;
    assert_eq!((again.attempt, again.asked), (2, 1));
    again
        .ticket
        .settle(settlement(Disposition::Done))
        .await
        .unwrap();
    queue.close().await;
}
