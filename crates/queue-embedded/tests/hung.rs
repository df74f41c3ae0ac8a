//! A disk that hangs: it costs bounded memory, and publishes that were given up are not stored
//! later.

#![cfg(feature = "failpoints")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use event_model::{Event, EventId, StoredEvent, SystemClock};
use fluent_queue_embedded::{Embedded, Options};
use queue::conformance::event;
use queue::{
    Attempt, Disposition, Intake, Lifecycle, Outcome, QueueError, Route, RouteFilter, Settlement,
    Source, StartPosition,
};

fn large(number: usize) -> Event {
    let small = event("E", "x");
    let body = String::from_utf8(small.body().to_vec()).unwrap();
    let more = format!(r#"{{"pad":"{number}{}","#, "x".repeat(1 << 20));
    let stored = StoredEvent {
        body: body.replacen('{', &more, 1).into(),
        ..small.stored().clone()
    };
    Event::restore(EventId::of(small.environment(), &stored.body), stored).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_disk_costs_bounded_memory_and_what_was_given_up_is_not_stored() {
    let _one_at_a_time = FAIL_POINTS.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let queue = Embedded::open(
        Options::new(folder.path().join("queue.db")),
        Arc::new(SystemClock),
    )
    .unwrap();
    queue.publish(event("E", "before")).await.unwrap();
    let hangs = Arc::new(AtomicBool::new(true));
    let (sender, in_hands) = std::sync::mpsc::channel();
    let hanging = Arc::clone(&hangs);
    fail::cfg_callback("commit.before", move || {
        let _ = sender.send(());
        while hanging.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
    })
    .unwrap();
    let in_hand = queue.publish(event("E", "in hand"));
    // The writer has it, and takes nothing more into its group.
    in_hands.recv_timeout(Duration::from_secs(60)).unwrap();
    let mut refused = 0;
    for number in 0..200 {
        let given_up =
            tokio::time::timeout(Duration::from_millis(5), queue.publish(large(number))).await;
        refused += usize::from(matches!(given_up, Ok(Err(QueueError::Unavailable { .. }))));
    }
    assert!(
        refused >= 200 - 64,
        "{refused}: what waits is bounded in bytes"
    );
    let began = Instant::now();
    while queue.has_room() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "somebody should see that nothing is written"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fail::remove("commit.before");
    hangs.store(false, Ordering::Relaxed);
    assert!(in_hand.await.is_ok());
    let after = queue.publish(event("E", "after")).await.unwrap();
    assert!(queue.has_room());
    assert_eq!(
        after.position.sequence(),
        3,
        "those who gave up were told that it was not stored"
    );
}

/// The event is in the file, but nobody could know: its sender is told that it was not stored,
/// and it is delivered all the same once the file is back.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_as_the_file_was_taken_away_is_delivered_once_it_is_back() {
    let _one_at_a_time = FAIL_POINTS.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let away = folder.path().join("away");
    let queue = Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    queue.publish(event("E", "before")).await.unwrap();
    let from = path.clone();
    let to = away.clone();
    let takes_away = move || std::fs::rename(&from, &to).unwrap();
    fail::cfg_callback("commit.after", move || {
        fail::remove("commit.after");
        takes_away();
    })
    .unwrap();
    let published = queue.publish(event("E", "meanwhile")).await;
    assert!(
        matches!(published, Err(QueueError::Unavailable { .. })),
        "{published:?}"
    );
    assert!(!queue.has_room());
    std::fs::rename(&away, &path).unwrap();
    let began = Instant::now();
    while !queue.has_room() {
        assert!(began.elapsed() < Duration::from_secs(60), "it is back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        queue
            .publish(event("E", "meanwhile"))
            .await
            .unwrap()
            .duplicate
    );
    assert!(!queue.publish(event("E", "after")).await.unwrap().duplicate);
    let mut consumer = queue.subscribe(route()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let next = tokio::time::timeout(Duration::from_secs(60), consumer.next(8)).await;
        seen.extend(
            next.expect("all are delivered")
                .unwrap()
                .iter()
                .map(|delivery| delivery.position.sequence()),
        );
    }
    assert_eq!(seen, [1, 2, 3]);
}

/// A group that was rolled back is tried job by job: a claim must then take the same deliveries.
#[tokio::test(flavor = "multi_thread")]
async fn claims_that_are_refused_now_and_then_skip_nothing() {
    let _one_at_a_time = FAIL_POINTS.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    let refuses = "CREATE TRIGGER refuses BEFORE INSERT ON deliveries WHEN abs(random()) % 8 = 0
        BEGIN SELECT RAISE(ABORT, 'not now'); END";
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(refuses)
        .unwrap();
    let mut consumer = queue.subscribe(route()).await.unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for number in 0..100 {
        queue
            .publish(event("E", &number.to_string()))
            .await
            .unwrap();
    }
    let began = Instant::now();
    while seen.len() < 100 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{} of 100 are delivered",
            seen.len()
        );
        let others =
            (0..4).map(|number| queue.publish(event("E", &format!("{}-{number}", seen.len()))));
        let (next, _) = tokio::join!(
            tokio::time::timeout(Duration::from_millis(300), consumer.next(4)),
            futures::future::join_all(others),
        );
        for delivery in next.into_iter().flatten().flatten() {
            if delivery.position.sequence() <= 100 {
                seen.insert(delivery.position.sequence());
            }
            let attempt = Attempt {
                started_at: delivery.event.received_at(),
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
            let _ = delivery.ticket.settle(done).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_whose_fsync_failed_is_never_written_again() {
    let _one_at_a_time = FAIL_POINTS.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    queue.publish(event("E", "a")).await.unwrap();
    fail::cfg("commit.fsync", "return").unwrap();
    assert!(matches!(
        queue.publish(event("E", "b")).await,
        Err(QueueError::Failed(_))
    ));
    fail::cfg("commit.fsync", "off").unwrap();
    let bytes = || {
        ["queue.db", "queue.db-wal"].map(|name| std::fs::read(folder.path().join(name)).unwrap())
    };
    let before = bytes();
    assert!(!queue.has_room() && folder.path().join("queue.db.untrusted").exists());
    assert!(matches!(
        queue.publish(event("E", "c")).await,
        Err(QueueError::Failed(_))
    ));
    let facts = queue.stores().facts();
    assert!(
        matches!(
            facts.set("who", "x".into()).await,
            Err(QueueError::Failed(_))
        ),
        "nor beside it"
    );
    queue.close().await;
    assert!(bytes() == before, "it was written to");
    drop(queue);
    let queue = Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    assert!(queue.damaged_file().is_some());
}

/// Where the disk has no more room, the log may have some: it is written into the file, and begins
/// anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_takes_what_fits_into_the_room_of_the_log() {
    let _one_at_a_time = FAIL_POINTS.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    for number in 0..50 {
        queue.publish(large(number)).await.unwrap();
    }
    let log = || {
        std::fs::metadata(folder.path().join("queue.db-wal"))
            .unwrap()
            .len()
    };
    let before = log();
    fail::cfg("commit.full", "1*return->off").unwrap();
    queue.publish(large(50)).await.unwrap();
    assert_eq!(log(), before, "it was written from its beginning again");
    assert!(queue.has_room());
    // Where that was of no use, it is not tried for ever.
    fail::cfg("commit.full", "return").unwrap();
    let refused = queue.publish(event("E", "a")).await;
    assert!(matches!(refused, Err(QueueError::Full)), "{refused:?}");
    assert!(!queue.has_room());
    fail::remove("commit.full");
    while !queue.has_room() {
        tokio::task::yield_now().await;
    }
    queue.publish(event("E", "a")).await.unwrap();
}

/// What the last process left in flight is recovered before anything else is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_starts_on_a_full_disk_is_not_ready_and_goes_on_by_itself() {
    let _one_at_a_time = FAIL_POINTS.lock().await;
    let folder = tempfile::tempdir().unwrap();
    let queue = Embedded::open(
        Options::new(folder.path().join("queue.db")),
        Arc::new(SystemClock),
    )
    .unwrap();
    queue.publish(event("E", "a")).await.unwrap();
    let mut consumer = queue.subscribe(route()).await.unwrap();
    let in_flight = consumer.next(1).await.unwrap();
    assert_eq!(in_flight.len(), 1);
    // The files as kill -9 leaves them.
    let killed = tempfile::tempdir().unwrap();
    for name in ["queue.db", "queue.db-wal"] {
        std::fs::copy(folder.path().join(name), killed.path().join(name)).unwrap();
    }
    fail::cfg("take_over.full", "return").unwrap();
    let path = killed.path().join("queue.db");
    let next = Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    assert!(!next.has_room());
    let refused = next.publish(event("E", "b")).await;
    assert!(matches!(refused, Err(QueueError::Full)), "{refused:?}");
    // It is asked for while there is no room, and joined once there is.
    let mut joining = next.subscribe(route());
    let early = futures::poll!(&mut joining);
    assert!(early.is_pending());
    fail::remove("take_over.full");
    let joined = tokio::time::timeout(Duration::from_secs(60), joining).await;
    let mut consumer = joined.unwrap().unwrap();
    let again = consumer.next(1).await.unwrap().remove(0);
    assert_eq!((again.attempt, again.deaths), (2, 1), "it died in flight");
    while !next.has_room() {
        tokio::task::yield_now().await;
    }
    next.publish(event("E", "b")).await.unwrap();
}

/// Serializes the tests, since fail points are of the whole process.
static FAIL_POINTS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn route() -> Route {
    Route {
        name: "r".to_owned(),
        filter: RouteFilter::default(),
        start: StartPosition::Beginning,
        lease: Duration::from_secs(30),
    }
}
