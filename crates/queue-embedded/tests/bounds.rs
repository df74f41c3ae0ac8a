//! Bounds of the file, the time for which an id is known, and checkpoints of the log.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::{Clock, Event, EventId, StoredEvent, SystemClock};
use fluent_queue_embedded::{Embedded, Options, Retention};
use queue::conformance::event;
use queue::{
    Attempt, Consumer, Disposition, Intake, Outcome, QueueError, Route, RouteFilter, Settlement,
    Source, StartPosition,
};

const IN_TIME: Duration = Duration::from_secs(60);

/// An event of today with a body of this many bytes, and a few more.
fn large(number: usize, bytes: usize) -> Event {
    let small = event("E", &number.to_string());
    let body = String::from_utf8(small.body().to_vec()).unwrap();
    let more = format!(r#"{{"pad":"{}","#, "x".repeat(bytes));
    let body = body.replacen('{', &more, 1).into();
    let stored = StoredEvent {
        body,
        received_at: SystemClock.now(),
        ..small.stored().clone()
    };
    Event::restore(EventId::of(small.environment(), &stored.body), stored).unwrap()
}

/// A queue with a file of 4 MiB that stores nothing because of its age.
fn open(path: &Path) -> Embedded {
    let retention = Retention {
        age: Duration::from_hours(1),
        bytes: 4 << 20,
    };
    Embedded::open(
        Options {
            retention,
            ..Options::new(path)
        },
        Arc::new(SystemClock),
    )
    .unwrap()
}

async fn subscribe(queue: &Embedded) -> Box<dyn Consumer> {
    let filter = RouteFilter::default();
    let lease = Duration::from_mins(5);
    queue
        .subscribe(Route {
            name: "r".to_owned(),
            filter,
            start: StartPosition::Beginning,
            lease,
        })
        .await
        .unwrap()
}

/// Settles this many deliveries.
async fn settle(consumer: &mut dyn Consumer, count: usize) {
    let mut settled = 0;
    while settled < count {
        let next = tokio::time::timeout(IN_TIME, consumer.next(16)).await;
        for delivery in next.expect("it is delivered").unwrap() {
            let attempt = Attempt {
                started_at: SystemClock.now(),
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
}

/// Publishes until the queue is full, and returns how many events it stored.
async fn fill(queue: &Embedded) -> usize {
    for number in 0..2_000 {
        match queue.publish(large(number, 100_000)).await {
            Ok(_) => {}
            Err(QueueError::Full) => return number,
            Err(error) => panic!("{error:?}"),
        }
        // The file is measured every second.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it takes whatever comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_full_refuses_what_is_new_knows_what_it_has_and_takes_again_once_there_is_room()
 {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(&folder.path().join("queue.db"));
    let mut consumer = subscribe(&queue).await;
    let count = fill(&queue).await;
    let first = large(0, 100_000);
    assert!(
        queue.publish(first.clone()).await.unwrap().duplicate,
        "what is there needs no room"
    );

    settle(&mut *consumer, count).await;
    let began = Instant::now();
    while let Err(error) = queue.publish(large(9_999, 100_000)).await {
        assert!(
            matches!(error, QueueError::Full) && began.elapsed() < IN_TIME,
            "{error:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let history = queue.stores().history();
    assert!(
        history
            .event(&first.id().to_string())
            .await
            .unwrap()
            .is_none(),
        "its body made room"
    );
    assert!(
        queue.publish(first).await.unwrap().duplicate,
        "its id is known as long as it has to be"
    );
}

/// Otherwise the log would grow for as long as the process runs, and be read whole at the next
/// start.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_is_moved_into_the_file_while_it_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    let log = || {
        std::fs::metadata(path.with_extension("db-wal"))
            .unwrap()
            .len()
    };
    let mut number = 0;
    while std::fs::metadata(&path).unwrap().len() < 8 << 20 {
        // No read takes long here, so no checkpoint has to wait for readers.
        assert!(log() < 60 << 20, "nothing is moved");
        queue.publish(large(number, 1 << 20)).await.unwrap();
        number += 1;
    }
}

#[tokio::test]
async fn two_ids_that_begin_alike_are_two() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    queue.publish(event("E", "a")).await.unwrap();
    let another = [&event("E", "a").id().as_bytes()[..31], &[0xA5]].concat();
    let sql = rusqlite::Connection::open(&path).unwrap();
    assert_eq!(
        sql.execute("UPDATE events SET id = ?1", [another]).unwrap(),
        1
    );
    assert!(!queue.publish(event("E", "a")).await.unwrap().duplicate);
    assert!(queue.publish(event("E", "a")).await.unwrap().duplicate);
}
