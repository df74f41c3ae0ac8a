//! A machine's clock that is set, which must neither delay anything nor end its attempts.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use event_model::{Bytes, Clock, Headers, Timestamp};
use fluent_queue_embedded::{Embedded, Options, SqliteStores};
use queue::conformance::event;
use queue::{
    Attempt, Delivery, Disposition, Intake, Lifecycle, MatchFields, Outcome, RejectedWebhook,
    Route, Settlement, Source, StartPosition, Stores,
};
use tokio::time::timeout;

/// A clock that runs, and can be set.
#[derive(Debug, Default)]
struct Wall(AtomicI64);

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        let set = event_model::SystemClock.now().as_second() + self.0.load(Ordering::Relaxed);
        Timestamp::from_second(set).unwrap()
    }
}

fn open(path: &Path, wall: &Arc<Wall>) -> Embedded {
    Embedded::open(Options::new(path), Arc::clone(wall) as Arc<dyn Clock>).unwrap()
}

async fn next(queue: &Embedded) -> Delivery {
    let route = Route {
        name: "r".to_owned(),
        filter: MatchFields::default().into(),
        start: StartPosition::Beginning,
        lease: Duration::from_secs(30),
    };
    let mut consumer = queue.subscribe(route).await.unwrap();
    let next = timeout(Duration::from_secs(60), consumer.next(1)).await;
    next.expect("it comes again in seconds")
        .unwrap()
        .pop()
        .unwrap()
}

fn refused(body: &'static [u8]) -> RejectedWebhook {
    RejectedWebhook::stored(
        0,
        Bytes::from_static(body),
        Headers::default(),
        event_model::SystemClock.now(),
        "signature-mismatch".to_owned(),
        "ACME".to_owned(),
    )
}

async fn wait_a_second(delivery: Delivery) {
    wait(delivery, Duration::from_secs(1)).await;
}

async fn wait(delivery: Delivery, time: Duration) {
    let attempt = Attempt {
        started_at: delivery.event.received_at(),
        took: Duration::ZERO,
        outcome: Outcome::Transient,
        status: None,
        detail: None,
    };
    let again = Settlement {
        disposition: Disposition::Again(time),
        attempt,
        asked: true,
    };
    delivery.ticket.settle(again).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_delays_no_retry_while_it_runs_and_while_it_is_down() {
    const HOUR: i64 = 3600;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let wall = Arc::new(Wall::default());
    let mut queue = open(&path, &wall);
    queue.publish(event("E", "a")).await.unwrap();
    for (is_down, set) in [
        (false, -25),
        (true, -HOUR),
        (false, 30 * HOUR),
        (true, -2 * HOUR),
        (false, -40 * HOUR),
    ] {
        wait_a_second(next(&queue).await).await;
        if is_down {
            queue.close().await;
        }
        wall.0.fetch_add(set, Ordering::Relaxed);
        if is_down {
            drop(queue);
            queue = open(&path, &wall);
        }
    }
    assert_eq!(next(&queue).await.attempt, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_years_ahead_leaves_no_retry_waiting_for_years() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let wall = Arc::new(Wall::default());
    wall.0.store(10 * 365 * 86_400, Ordering::Relaxed);
    let queue = open(&path, &wall);
    queue.publish(event("E", "a")).await.unwrap();
    wait_a_second(next(&queue).await).await;
    queue.close().await;
    drop(queue);
    wall.0.store(0, Ordering::Relaxed);
    let queue = open(&path, &wall);
    assert_eq!(next(&queue).await.attempt, 2);
    assert!(
        queue.publish(event("E", "a")).await.unwrap().duplicate,
        "its id is known still"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_moved_once_is_not_moved_again_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let wall = Arc::new(Wall::default());
    let queue = open(&path, &wall);
    queue.publish(event("E", "a")).await.unwrap();
    wait(next(&queue).await, Duration::from_secs(600)).await;
    let waits_until = || {
        let sql = rusqlite::Connection::open(&path).unwrap();
        sql.query_row("SELECT at FROM deliveries", [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    let before = waits_until();
    wall.0.fetch_add(-3600, Ordering::Relaxed);
    let began = Instant::now();
    while waits_until() == before {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "the clock is followed"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The file as kill -9 leaves it.
    let copy = tempfile::tempdir().unwrap();
    for end in ["", "-wal"] {
        let name = format!("queue.db{end}");
        std::fs::copy(folder.path().join(&name), copy.path().join(&name)).unwrap();
    }
    let queue = open(&copy.path().join("queue.db"), &wall);
    let route = Route {
        name: "r".to_owned(),
        filter: MatchFields::default().into(),
        start: StartPosition::Beginning,
        lease: Duration::from_secs(30),
    };
    let mut consumer = queue.subscribe(route).await.unwrap();
    let early = timeout(Duration::from_secs(2), consumer.next(1)).await;
    assert!(early.is_err(), "it waits for ten minutes: {early:?}");
}

/// Seconds for which a delivery seems to have been tried.
fn tried_for(delivery: &Delivery, wall: &Wall) -> i64 {
    wall.now().as_second() - delivery.first_attempt_at.as_second()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_ahead_is_no_time_for_which_anything_was_tried() {
    const FOUR_DAYS: i64 = 4 * 86_400;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let wall = Arc::new(Wall::default());
    let queue = open(&path, &wall);
    queue.publish(event("E", "a")).await.unwrap();
    for (jump, at_most) in [(FOUR_DAYS, 60), (-FOUR_DAYS, 120)] {
        wait_a_second(next(&queue).await).await;
        wall.0.fetch_add(jump, Ordering::Relaxed);
        let again = next(&queue).await;
        let tried = tried_for(&again, &wall);
        assert!((-2..at_most).contains(&tried), "{tried} s after {jump} s");
        wait_a_second(again).await;
    }
    queue.close().await;
    drop(queue);
    // Off for four days.
    wall.0.fetch_add(FOUR_DAYS, Ordering::Relaxed);
    let queue = open(&path, &wall);
    let again = next(&queue).await;
    let tried = tried_for(&again, &wall);
    assert!((3590..3800).contains(&tried), "{tried} s: an hour at most");
    wait_a_second(again).await;
    queue.close().await;
    drop(queue);
    let queue = open(&path, &wall);
    let tried = tried_for(&next(&queue).await, &wall);
    assert!((3590..3800).contains(&tried), "{tried} s: moved once");
}

/// What is in flight while the clock is set is no exception.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_during_an_attempt_is_followed_by_its_delivery() {
    const FOUR_DAYS: i64 = 4 * 86_400;
    for jump in [FOUR_DAYS, -FOUR_DAYS] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        let wall = Arc::new(Wall::default());
        let queue = open(&path, &wall);
        queue.publish(event("E", "a")).await.unwrap();
        let first = next(&queue).await;
        let began = || {
            let sql = rusqlite::Connection::open(&path).unwrap();
            sql.busy_timeout(Duration::from_secs(20)).unwrap();
            sql.query_row("SELECT first_at, at FROM deliveries", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })
            .unwrap()
        };
        let before = began();
        wall.0.fetch_add(jump, Ordering::Relaxed);
        let waited = Instant::now();
        while began() == before {
            assert!(waited.elapsed() < Duration::from_secs(20), "after {jump} s");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let second = 1_000_000_000;
        let by = |after: i64, before: i64| (after - before + second / 2) / second;
        let moved = (by(began().0, before.0), by(began().1, before.1));
        assert!((jump - 2..=jump + 2).contains(&moved.0), "{moved:?}");
        assert!((jump - 2..=jump + 2).contains(&moved.1), "{moved:?}");
        wait_a_second(first).await;
        let tried = tried_for(&next(&queue).await, &wall);
        assert!((-2..60).contains(&tried), "{tried} s after {jump} s");
    }
}

/// Facts and refused webhooks go by their age, and a clock that is years ahead for a moment makes
/// nothing old.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_by_a_clock_that_is_ahead_for_a_moment() {
    const TEN_YEARS: i64 = 10 * 366 * 24 * 3600;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let wall = Arc::new(Wall::default());
    let mut queue = open(&path, &wall);
    let set = async |stores: &dyn Stores, name: &str| {
        let facts = stores.facts();
        facts.set(name, Bytes::from_static(b"1")).await.unwrap();
    };
    set(queue.stores(), "a.b").await;
    queue.capture_rejected(refused(b"1")).await.unwrap();
    for is_down in [false, true] {
        if is_down {
            queue.close().await;
        }
        wall.0.fetch_add(TEN_YEARS, Ordering::Relaxed);
        if is_down {
            drop(queue);
            queue = open(&path, &wall);
        }
        // Stores of this process and of a command beside it remove what is old when they write.
        let beside = SqliteStores::open(&path, None).unwrap();
        set(queue.stores(), "a.c").await;
        set(&beside, "a.d").await;
        queue.capture_rejected(refused(b"2")).await.unwrap();
        for stores in [queue.stores(), &beside] {
            let held = stores.refused().count().await.unwrap();
            assert_eq!(held.webhooks, 2, "is down: {is_down}");
        }
        let fact = queue.stores().facts().get("a.b").await.unwrap();
        assert!(fact.is_some(), "is down: {is_down}");
        wall.0.fetch_sub(TEN_YEARS, Ordering::Relaxed);
    }
}
