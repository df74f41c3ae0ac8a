//! The time since which every event is stored: it moves on with what retention removes.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use event_model::{Clock, Event, StoredEvent, Timestamp};
use fluent_queue_embedded::{Embedded, Options, Retention};
use queue::conformance::event;
use queue::{
    Attempt, Disposition, Intake, Lifecycle, MatchFields, Outcome, Position, ReceivedQuery, Route,
    Settlement, Source, StartPosition,
};

/// A clock that a test sets.
#[derive(Debug)]
struct Set(AtomicI64);

impl Clock for Set {
    fn now(&self) -> Timestamp {
        at(self.0.load(Ordering::Relaxed))
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn received(second: i64, reference: &str) -> Event {
    let event = event("E", reference);
    let stored = StoredEvent {
        received_at: at(second),
        ..event.stored().clone()
    };
    Event::restore(event.id(), stored).unwrap()
}

async fn since(queue: &Embedded) -> Timestamp {
    queue.stores().history().complete_since().await.unwrap()
}

async fn kept(queue: &Embedded) -> usize {
    let all = ReceivedQuery {
        from: at(0),
        until: Timestamp::MAX,
        after: Position::START,
        limit: 100,
    };
    queue
        .stores()
        .history()
        .received(all)
        .await
        .unwrap()
        .events
        .len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_is_no_longer_known() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(Set(AtomicI64::new(1000)));
    let retention = Retention {
        age: Duration::from_secs(2),
        bytes: 1 << 30,
    };
    let options = || Options {
        retention,
        ..Options::new(folder.path().join("queue.db"))
    };
    let queue = Embedded::open(options(), Arc::clone(&clock) as _).unwrap();
    assert_eq!(
        since(&queue).await,
        at(1000),
        "before that there was no queue"
    );
    clock.0.store(1100, Ordering::Relaxed);
    for (second, reference) in [
        (1001, "a"),
        (1002, "b"),
        (1900, "stamped by a clock that was ahead"),
    ] {
        assert!(
            !queue
                .publish(received(second, reference))
                .await
                .unwrap()
                .duplicate
        );
    }
    let route = Route {
        name: "r".to_owned(),
        filter: MatchFields::default().into(),
        start: StartPosition::Beginning,
        lease: Duration::from_secs(30),
    };
    let mut consumer = queue.subscribe(route).await.unwrap();
    let mut settled = 0;
    while settled < 3 {
        for delivery in consumer.next(3).await.unwrap() {
            let attempt = Attempt {
                started_at: at(1001),
                took: Duration::ZERO,
                outcome: Outcome::Done,
                status: None,
                detail: None,
            };
            let done = Settlement {
                disposition: Disposition::Done,
                asked: true,
                attempt,
            };
            delivery.ticket.settle(done).await.unwrap();
            settled += 1;
        }
    }
    let began = Instant::now();
    while kept(&queue).await > 0 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "what is settled and old goes"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let expected = at(1002).checked_add(Duration::from_nanos(1)).unwrap();
    assert_eq!(since(&queue).await, expected, "`a` and `b` did come");
    queue.close().await;
    drop((consumer, queue));
    let queue = Embedded::open(options(), clock).unwrap();
    assert_eq!(since(&queue).await, expected, "and the next process knows");
}
