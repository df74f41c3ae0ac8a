//! Retention: which events are removed when, and what is reported when there is no room.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use event_model::{Bytes, Clock, Event, StoredEvent, SystemClock, Timestamp};
use fluent_queue_embedded::{Embedded, Options};
use queue::conformance::event;
use queue::{
    Attempt, Consumer, DeadQuery, DeadReason, Disposition, Intake, Lifecycle, MatchFields, Outcome,
    QueueError, Route, Settlement, Source, StartPosition,
};
use rusqlite::Connection;

const YEARS: i64 = 10 * 365 * 86_400;

/// A clock that runs, and can be set.
#[derive(Debug, Default)]
struct Wall(AtomicI64);

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        let ahead = self.0.load(Ordering::Relaxed);
        SystemClock
            .now()
            .checked_add(Duration::from_secs(ahead.unsigned_abs()))
            .unwrap()
    }
}

fn with(path: &Path, change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options::new(path);
    change(&mut options);
    options
}

fn open(path: &Path, change: impl FnOnce(&mut Options)) -> Embedded {
    Embedded::open(with(path, change), Arc::new(SystemClock)).unwrap()
}

fn stamped(reference: &str, at: Timestamp) -> Event {
    let event = event("E", reference);
    let stored = StoredEvent {
        received_at: at,
        ..event.stored().clone()
    };
    Event::restore(event.id(), stored).unwrap()
}

async fn subscribe(queue: &Embedded) -> Box<dyn Consumer> {
    let route = Route {
        name: "r".to_owned(),
        filter: MatchFields::default().into(),
        start: StartPosition::Beginning,
        lease: Duration::from_secs(60),
    };
    queue.subscribe(route).await.unwrap()
}

async fn settle(consumer: &mut dyn Consumer, count: usize, disposition: Disposition) {
    let mut settled = 0;
    while settled < count {
        for delivery in consumer.next(count - settled).await.unwrap() {
            let attempt = Attempt {
                started_at: delivery.first_attempt_at,
                took: Duration::ZERO,
                outcome: Outcome::Done,
                status: None,
                detail: Some("x".repeat(300)),
            };
            delivery
                .ticket
                .settle(Settlement {
                    disposition,
                    asked: true,
                    attempt,
                })
                .await
                .unwrap();
            settled += 1;
        }
    }
}

fn count(path: &Path, what: &str) -> i64 {
    let sql = Connection::open(path).unwrap();
    sql.busy_timeout(Duration::from_secs(20)).unwrap();
    sql.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| {
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

#[tokio::test(flavor = "multi_thread")]
async fn one_event_that_is_stamped_ahead_keeps_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = open(&path, |options| {
        options.retention.age = Duration::from_secs(1)
    });
    let ahead = SystemClock
        .now()
        .checked_add(Duration::from_hours(24 * 3650))
        .unwrap();
    queue.publish(stamped("ahead", ahead)).await.unwrap();
    for number in 0..20 {
        queue
            .publish(stamped(&number.to_string(), SystemClock.now()))
            .await
            .unwrap();
    }
    settle(&mut *subscribe(&queue).await, 21, Disposition::Done).await;
    until("all have their age", || count(&path, "bodies") == 0).await;
    assert_eq!(count(&path, "events"), 21, "their ids stay");
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_years_ahead_for_a_moment_ends_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let wall = Arc::new(Wall::default());
    let serve = || {
        let options = with(&path, |options| options.retention.age = Duration::ZERO);
        Embedded::open(options, Arc::clone(&wall) as Arc<dyn Clock>).unwrap()
    };
    // The body of the event is removed, so retention has seen the present time.
    let look = async |queue: &Embedded, reference: &str| {
        queue
            .publish(stamped(reference, SystemClock.now()))
            .await
            .unwrap();
        settle(&mut *subscribe(queue).await, 1, Disposition::Done).await;
        until("retention looks", || count(&path, "bodies") == 0).await;
    };
    let queue = serve();
    look(&queue, "a").await;
    wall.0.store(YEARS, Ordering::Relaxed);
    look(&queue, "b").await;
    wall.0.store(0, Ordering::Relaxed);
    look(&queue, "c").await;
    queue.close().await;
    drop(queue);
    wall.0.store(YEARS, Ordering::Relaxed);
    let queue = serve();
    look(&queue, "d").await;
    wall.0.store(0, Ordering::Relaxed);
    look(&queue, "e").await;
    for reference in ["a", "b", "c", "d", "e"] {
        let again = queue
            .publish(stamped(reference, SystemClock.now()))
            .await
            .unwrap();
        assert!(again.duplicate, "{reference} would be delivered again");
    }
    queue.close().await;
}

/// Records that everything in the file came this many hours ago.
fn came_hours_ago(path: &Path, hours: i64) {
    let sql = Connection::open(path).unwrap();
    sql.busy_timeout(Duration::from_secs(20)).unwrap();
    let at = i64::try_from(SystemClock.now().as_nanosecond()).unwrap() - hours * 3_600_000_000_000;
    let text =
        "INSERT OR REPLACE INTO ages SELECT max(position), ?1 FROM events HAVING max(position) > 0";
    sql.execute(text, [at]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn settled_ids_make_room_for_what_is_new() {
    const ROUNDS: usize = 15;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = open(&path, |options| options.retention.bytes = 512 << 10);
    let mut consumer = subscribe(&queue).await;
    let mut known = Vec::new();
    for round in 0..ROUNDS {
        came_hours_ago(&path, 28);
        let events: Vec<_> = (0..300)
            .map(|number| stamped(&format!("{round}-{number}"), SystemClock.now()))
            .collect();
        let began = Instant::now();
        loop {
            let published =
                futures::future::join_all(events.iter().map(|event| queue.publish(event.clone())))
                    .await;
            if published.iter().all(Result::is_ok) {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "full of what is settled: {published:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        settle(&mut *consumer, 300, Disposition::Done).await;
        known.push(count(&path, "events"));
    }
    until("it is within its limit, and takes more", || {
        queue.has_room()
    })
    .await;
    until("what is left of settled events is their ids", || {
        count(&path, "attempts") <= 900
    })
    .await;
    assert!(
        count(&path, "events") < 300 * ROUNDS as i64,
        "the oldest went: {known:?}"
    );
    assert!(
        queue
            .publish(stamped("14-299", SystemClock.now()))
            .await
            .unwrap()
            .duplicate
    );
    let began = Instant::now();
    while queue
        .health()
        .await
        .ids_known_for
        .is_none_or(|seconds| seconds > 29 * 3600)
    {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it says for how long ids are known"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_do_not_go_for_what_is_unsettled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = open(&path, |options| options.retention.bytes = 1 << 20);
    let mut consumer = subscribe(&queue).await;
    queue
        .publish(stamped("settled", SystemClock.now()))
        .await
        .unwrap();
    settle(&mut *consumer, 1, Disposition::Done).await;
    // Older than Fluent sends an event again, and known for the window still.
    came_hours_ago(&path, 28);
    let mut number = 0;
    while queue.publish(large(&number.to_string())).await.is_ok() {
        number += 1;
        assert!(number < 10_000, "it is never full");
    }
    // Noted by the pass that looks next whether ids are what fills the file.
    until("room was made of what is settled", || {
        count(&path, "meta WHERE key = 'ids_alone_up_to' AND value >= 1") == 1
    })
    .await;
    assert!(
        queue
            .publish(stamped("settled", SystemClock.now()))
            .await
            .unwrap()
            .duplicate
    );
    let why = queue.impediment();
    assert_eq!(
        why.as_deref(),
        Some("the queue is full (`queue.retention.bytes`)")
    );
    settle(&mut *consumer, number, Disposition::Done).await;
    until("it has room again", || queue.has_room()).await;
    queue.close().await;
}

fn large(reference: &str) -> Event {
    let event = event("E", reference);
    let body: Bytes = format!(
        r#"{{"id":"{reference}","name":"E","accountId":"ACME","retailerId":"1","entityRef":"{reference}","attributes":{{"x":"{}"}}}}"#,
        "x".repeat(20_000)
    )
    .into();
    let id = event_model::EventId::of(event_model::Environment::Sandbox, &body);
    Event::restore(
        id,
        StoredEvent {
            body,
            ..event.stored().clone()
        },
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_somebody_reads_counts_and_is_short_again_after_that() {
    const MIB: u64 = 1 << 20;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let log = || {
        std::fs::metadata(path.with_extension("db-wal"))
            .unwrap()
            .len()
    };
    let queue = open(&path, |options| options.retention.bytes = 80 * MIB);
    let mut consumer = subscribe(&queue).await;
    queue.publish(event("E", "a")).await.unwrap();
    settle(&mut *consumer, 1, Disposition::Done).await;
    let reader = Connection::open(&path).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM events;")
        .unwrap();
    let mut number = 0;
    let mut all = 1;
    // Much is published, and all of it is settled.
    let refused = loop {
        let some = (0..50).map(|more| large(&format!("{number}-{more}")));
        let published = futures::future::join_all(some.map(|event| queue.publish(event))).await;
        let stored = published
            .iter()
            .filter(|published| published.is_ok())
            .count();
        settle(&mut *consumer, stored, Disposition::Done).await;
        all += stored as i64;
        if let Some(Err(error)) = published.into_iter().find(Result::is_err) {
            break error;
        }
        number += 1;
        assert!(log() < 300 * MIB, "the log grows and grows: {number}");
    };
    assert!(matches!(refused, QueueError::Full), "{refused}");
    assert!(log() > 16 * MIB, "it was the log");
    let used = queue.stores().health().await.unwrap().usage[0].used;
    assert!(used > 16 * MIB, "who watches it is told: {used}");
    assert_eq!(
        count(&path, "bodies"),
        all,
        "to remove what has not its age would not shorten the log"
    );
    reader.execute_batch("COMMIT").unwrap();
    until("it has room again", || queue.has_room()).await;
    queue.publish(event("E", "after")).await.unwrap();
    until("the log is short again", || log() <= 17 * MIB).await;
    queue.close().await;
}

/// The log's file stays as long as it was, which does not tell how much is in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_long_once_is_not_moved_into_the_file_ever_after() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = open(&path, |_| {});
    // The header has another number each time the log begins again.
    let begun = || {
        let header = std::fs::read(path.with_extension("db-wal")).unwrap();
        header[16..20].to_vec()
    };
    queue.publish(event("E", "first")).await.unwrap();
    let first = begun();
    let mut number = 0;
    while begun() == first {
        let some = (0..20).map(|more| large(&format!("{number}-{more}")));
        let published = futures::future::join_all(some.map(|event| queue.publish(event))).await;
        assert!(published.iter().all(Result::is_ok));
        number += 1;
        assert!(number < 1000, "it never begins anew");
    }
    let written = || std::fs::metadata(&path).unwrap().modified().unwrap();
    let before = written();
    for small in 0..100 {
        queue.publish(event("E", &small.to_string())).await.unwrap();
    }
    assert_eq!(
        written(),
        before,
        "each was a group of its own, and none filled the log"
    );
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_letter_kept_goes_once_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = open(&path, |options| {
        options.retention.age = Duration::ZERO;
        options.dedup_window = Duration::ZERO;
    });
    let mut consumer = subscribe(&queue).await;
    for number in 0..600 {
        queue
            .publish(event("E", &number.to_string()))
            .await
            .unwrap();
    }
    settle(
        &mut *consumer,
        600,
        Disposition::Dead(DeadReason::Permanent),
    )
    .await;
    queue.publish(event("E", "settled")).await.unwrap();
    settle(&mut *consumer, 1, Disposition::Done).await;
    until("what is behind the letters goes", || {
        count(&path, "events WHERE position > 600") == 0
    })
    .await;
    assert_eq!(count(&path, "bodies"), 600, "theirs stay");
    let letters = queue.stores().dead_letters();
    let query = DeadQuery {
        limit: 600,
        ..DeadQuery::default()
    };
    let ids: Vec<u64> = letters
        .list(query)
        .await
        .unwrap()
        .iter()
        .map(|letter| letter.id)
        .collect();
    letters.discard(&ids[..300]).await;
    until("what was discarded goes", || count(&path, "events") == 300).await;
    letters.redrive(&ids[300..301], None).await;
    settle(&mut *consumer, 1, Disposition::Done).await;
    until("and what was redriven and is done", || {
        count(&path, "events") == 299
    })
    .await;
    assert_eq!((count(&path, "bodies"), count(&path, "freed")), (299, 0));
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_a_redrive_is_not_given_again_when_the_event_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let serve = || {
        open(&path, |options| {
            options.retention.age = Duration::ZERO;
            options.dedup_window = Duration::ZERO;
        })
    };
    let mut queue = serve();
    let mut keys = Vec::new();
    for round in 0..3 {
        assert!(!queue.publish(event("E", "a")).await.unwrap().duplicate);
        let mut consumer = subscribe(&queue).await;
        settle(&mut *consumer, 1, Disposition::Dead(DeadReason::Permanent)).await;
        let letters = queue.stores().dead_letters();
        let letter = letters
            .list(DeadQuery {
                limit: 1,
                ..DeadQuery::default()
            })
            .await
            .unwrap()
            .remove(0);
        assert!(
            letters
                .redrive(&[letter.id], None)
                .await
                .iter()
                .all(Result::is_ok)
        );
        let again = consumer.next(1).await.unwrap().remove(0);
        keys.push(again.id("r"));
        drop((again, consumer));
        settle(&mut *subscribe(&queue).await, 1, Disposition::Done).await;
        until("it is forgotten", || count(&path, "events") == 0).await;
        if round == 1 {
            // A damaged file is quarantined, and an event that is sent again comes into a new
            // one.
            queue.close().await;
            drop(queue);
            std::fs::write(path.with_extension("db.untrusted"), "as the test wants it").unwrap();
            queue = serve();
            assert!(queue.damaged_file().is_some());
        }
    }
    queue.close().await;
    let all = keys.len();
    let given = keys.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(given, all, "{keys:?}");
}
