//! The time for which an id is known: longer than Fluent tries, whose last try may come 25 h and
//! a minute after its first.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::SystemClock;
use fluent_queue_embedded::{Embedded, Options};
use queue::conformance::event;
use queue::{
    Attempt, Disposition, Intake, Lifecycle, MatchFields, Outcome, Route, Settlement, Source,
    StartPosition,
};

/// The shortest window that settings can have.
const WINDOW: Duration = Duration::from_hours(27);

fn open(path: &Path) -> Embedded {
    let mut options = Options::new(path);
    options.dedup_window = WINDOW;
    options.retention.age = Duration::from_secs(1);
    Embedded::open(options, Arc::new(SystemClock)).unwrap()
}

/// Makes everything in the file older. The file has a time of its own, which no clock can set.
fn let_pass(path: &Path, time: Duration) {
    let sql = rusqlite::Connection::open(path).unwrap();
    let nanos = i64::try_from(time.as_nanos()).unwrap();
    assert!(
        sql.execute("UPDATE ages SET at = at - ?1", [nanos])
            .unwrap()
            > 0
    );
}

async fn settle_one(queue: &Embedded) {
    let route = Route {
        name: "r".to_owned(),
        filter: MatchFields::default().into(),
        start: StartPosition::Beginning,
        lease: Duration::from_secs(60),
    };
    let delivery = queue
        .subscribe(route)
        .await
        .unwrap()
        .next(1)
        .await
        .unwrap()
        .remove(0);
    let started_at = delivery.first_attempt_at;
    let attempt = Attempt {
        started_at,
        took: Duration::ZERO,
        outcome: Outcome::Done,
        status: None,
        detail: None,
    };
    delivery
        .ticket
        .settle(Settlement {
            disposition: Disposition::Done,
            asked: true,
            attempt,
        })
        .await
        .unwrap();
}

fn count(path: &Path, table: &str) -> i64 {
    let sql = rusqlite::Connection::open(path).unwrap();
    sql.busy_timeout(Duration::from_secs(20)).unwrap();
    sql.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| {
        row.get(0)
    })
    .unwrap()
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn publish(queue: &Embedded, reference: &str) -> bool {
    queue
        .publish(event("E", reference))
        .await
        .unwrap()
        .duplicate
}

/// Stores an event, settles it, and waits until retention has seen it.
async fn have_settled(queue: &Embedded, path: &Path, reference: &str) {
    assert!(!publish(queue, reference).await);
    settle_one(queue).await;
    until("retention has looked", || count(path, "bodies") == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_a_duplicate_within_the_window_and_an_event_anew_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = open(&path);
    have_settled(&queue, &path, "a").await;
    queue.close().await;
    drop(queue);

    let last_try = Duration::from_hours(25) + Duration::from_mins(1);
    let_pass(&path, last_try);
    let queue = open(&path);
    // If the first event had been forgotten, it would be by now.
    have_settled(&queue, &path, "b").await;
    assert!(publish(&queue, "a").await, "younger than the window");
    queue.close().await;
    drop(queue);

    let_pass(&path, WINDOW - last_try);
    let queue = open(&path);
    until("what is older is forgotten", || count(&path, "events") == 1).await;
    assert!(!publish(&queue, "a").await, "older than the window");
    assert!(publish(&queue, "b").await, "two hours old");
    queue.close().await;
}
