//! Events and routes for the checks, and helpers that read what comes back.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use event_model::{Event, Timestamp};
use tokio::time::timeout;

use super::{LEASE, PATIENCE, QUIET, Queue};
use crate::{
    Attempt, Consumer, Delivery, Disposition, MatchFields, Outcome, Route, RouteFilter, Settlement,
    StartPosition, Stores,
};

/// An event called `name`, about the order `reference`.
pub use event_model::testing::event;
pub(crate) use event_model::testing::event_of;

/// An event about the order `reference`, received long ago.
pub(crate) fn old_event(reference: &str) -> Event {
    let stored = event_model::StoredEvent {
        received_at: Timestamp::from_second(1_000_000_000).expect("a time"),
        ..event("E", reference).stored().clone()
    };
    Event::restore(event("E", reference).id(), stored).expect("the same bytes")
}

pub(crate) fn route(name: &str, terms: MatchFields, start: StartPosition) -> Route {
    Route {
        name: name.to_owned(),
        filter: RouteFilter::from(terms),
        start,
        lease: LEASE,
    }
}

/// A consumer of everything from the beginning.
pub(crate) async fn consumer(queue: &Queue, name: &str) -> Box<dyn Consumer> {
    let route = route(name, MatchFields::default(), StartPosition::Beginning);
    queue.source().subscribe(route).await.expect("subscribe")
}

pub(crate) async fn publish(queue: &Queue, references: &[&str]) {
    for reference in references {
        let receipt = queue
            .intake()
            .publish(event("E", reference))
            .await
            .expect("publish");
        assert!(!receipt.duplicate, "{reference} is new");
    }
}

/// The next delivery, which must come.
pub(crate) async fn one(consumer: &mut dyn Consumer) -> Delivery {
    let mut deliveries = timeout(PATIENCE, consumer.next(1))
        .await
        .expect("a delivery in time")
        .expect("next");
    assert_eq!(deliveries.len(), 1);
    deliveries.remove(0)
}

/// The next `count` deliveries, by entity ref, settled as done.
pub(crate) async fn finish(consumer: &mut dyn Consumer, count: usize) -> Vec<String> {
    let mut references = Vec::new();
    while references.len() < count {
        let delivery = one(consumer).await;
        references.push(reference(&delivery));
        settle(delivery, Disposition::Done).await;
    }
    references.sort();
    references
}

/// Checks that a consumer gets nothing that was published before: what is published now, as events
/// called `name`, is all that comes. Two of them, since what is due again may come behind one.
/// Returns their references.
pub(crate) async fn nothing_before(
    queue: &Queue,
    consumer: &mut dyn Consumer,
    name: &str,
    why: &str,
) -> Vec<String> {
    static PUBLISHED: AtomicU32 = AtomicU32::new(0);
    let mut references = Vec::new();
    for _ in 0..2 {
        let number = PUBLISHED.fetch_add(1, Ordering::Relaxed);
        let new = format!("later-{number:06}");
        let publishing = queue.intake().publish(event(name, &new));
        assert!(!publishing.await.expect("publish").duplicate);
        let delivery = one(consumer).await;
        assert_eq!(reference(&delivery), new, "expected nothing else, {why}");
        settle(delivery, Disposition::Done).await;
        references.push(new);
    }
    references
}

/// Checks that nothing comes of a route that is paused. What comes once it goes on shows that
/// something was there.
pub(crate) async fn nothing_while_paused(consumer: &mut dyn Consumer, why: &str) {
    let next = timeout(QUIET, consumer.next(1)).await;
    assert!(next.is_err(), "expected nothing, {why}: {next:?}");
}

pub(crate) fn reference(delivery: &Delivery) -> String {
    delivery
        .event
        .fields()
        .entity_ref
        .clone()
        .unwrap_or_default()
}

pub(crate) fn settlement(disposition: Disposition) -> Settlement {
    let outcome = match disposition {
        Disposition::Done => Outcome::Done,
        Disposition::Again(_) => Outcome::Transient,
        Disposition::Dead(_) => Outcome::Permanent,
    };
    let attempt = Attempt {
        started_at: Timestamp::from_second(1_790_000_000).expect("a time"),
        took: Duration::from_millis(1),
        outcome,
        status: Some(503),
        detail: Some("as the check wants it".to_owned()),
    };
    Settlement {
        disposition,
        asked: true,
        attempt,
    }
}

pub(crate) async fn settle(delivery: Delivery, disposition: Disposition) {
    delivery
        .ticket
        .settle(settlement(disposition))
        .await
        .expect("settle");
}

/// Waits until `is_so` returns true.
pub(crate) async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(QUIET / 10).await;
        }
    };
    assert!(
        timeout(PATIENCE, waiting).await.is_ok(),
        "not in time: {what}"
    );
}

/// Waits until the event about `reference` is stored, and sees that it is stored once.
pub(crate) async fn assert_stored(stores: &dyn Stores, reference: &str) {
    let find = async || {
        stores
            .history()
            .find(reference, 5)
            .await
            .map_or(0, |found| found.len())
    };
    eventually(reference, async || find().await > 0).await;
    assert_eq!(find().await, 1, "{reference} is stored once");
}
