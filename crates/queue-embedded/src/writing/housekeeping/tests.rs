//! Tests of retention in a queue file that fills.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use event_model::{Clock, SystemClock, Timestamp};
use queue::{Lifecycle, Stores};
use rusqlite::Connection;
use sqlite_file::{FileStatus, Log, connect, inbox, used_bytes};

use super::Housekeeping;
use crate::embedded::MESSAGES;
use crate::shared::Shared;
use crate::stores::same_ids;
use crate::writing::queue_time::QueueTime;
use crate::{Embedded, Options, Retention, SqliteStores};

/// A file that nobody serves, with the housekeeping of one that is.
struct Kept {
    sql: Connection,
    shared: Shared,
    housekeeping: Housekeeping,
    folder: tempfile::TempDir,
}

impl Kept {
    /// A file with this many settled events, none of which has reached its age.
    async fn with(events: u32, options: impl FnOnce(&Connection, PathBuf) -> Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        Embedded::open(Options::new(&path), Arc::new(SystemClock))
            .unwrap()
            .close()
            .await;
        let sql = connect(&path).unwrap();
        sql.execute_batch(&format!(
            "INSERT INTO routes (name, cursor) VALUES ('r', {events});
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {events})
             INSERT INTO events SELECT i, i, randomblob(32), 'sydney_sandbox', 'SHA512withRSA', x'00', 1, NULL, NULL, NULL FROM n;
             INSERT INTO bodies SELECT position, randomblob(1000) FROM events;"
        ))
        .unwrap();
        let options = options(&sql, path);
        Self::of(sql, options, folder)
    }

    fn of(sql: Connection, options: Options, folder: tempfile::TempDir) -> Self {
        let clock = Arc::new(SystemClock);
        let (inbox, _) = inbox(Arc::new(FileStatus::new(&options.path, &MESSAGES)));
        let shared = Shared::new(String::new(), 0, inbox, clock);
        let time = QueueTime::go_on(&sql, shared.now()).unwrap();
        let housekeeping = Housekeeping::new(options, time);
        Self {
            sql,
            shared,
            housekeeping,
            folder,
        }
    }

    /// Runs the housekeeping once, and returns whether there is more to do.
    fn run(&mut self) -> bool {
        let later = Instant::now() + Duration::from_hours(1);
        self.housekeeping.next = later;
        self.housekeeping
            .run(&mut self.sql, &self.shared, &mut Log::default(), later)
            .unwrap()
    }

    fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Relaxed)
    }

    fn count(&self, what: &str) -> i64 {
        self.sql
            .query_row(&format!("SELECT count(*) FROM {what}"), [], |row| {
                row.get(0)
            })
            .unwrap()
    }
}

/// A limit of which the file uses this percentage.
fn used_by(percent: u64) -> impl FnOnce(&Connection, PathBuf) -> Options {
    move |sql, path: PathBuf| {
        let mut options = Options::new(Path::new(&path));
        options.retention.bytes = used_bytes(sql).unwrap() * 100 / percent;
        options
    }
}

#[tokio::test]
async fn a_file_over_its_limit_is_full_also_while_there_is_something_to_remove() {
    let mut kept = Kept::with(8000, used_by(300)).await;
    assert!(kept.run(), "there is more to remove");
    assert!(kept.is_full(), "it would grow meanwhile");
    while kept.run() {}
    assert!(!kept.is_full());
    assert!(kept.count("bodies") > 0, "no more went than had to");
    assert_eq!(kept.count("events"), 8000);
}

#[tokio::test]
async fn what_is_settled_makes_room_before_anything_is_refused() {
    let mut kept = Kept::with(8000, used_by(99)).await;
    let before = kept.count("bodies");
    while kept.run() {
        assert!(!kept.is_full());
    }
    assert!(!kept.is_full());
    assert!(kept.count("bodies") < before);
}

#[tokio::test]
async fn ids_that_must_stay_are_no_reason_to_go_on_and_nothing_is_written_for_them() {
    let no_age = |sql: &Connection, path: PathBuf| {
        let mut options = used_by(10)(sql, path);
        options.retention.age = Duration::ZERO;
        options
    };
    let mut kept = Kept::with(2000, no_age).await;
    kept.sql
        .execute("INSERT OR REPLACE INTO ages VALUES (2000, 0)", [])
        .unwrap();
    while kept.run() {}
    assert_eq!(
        (kept.count("events"), kept.count("bodies")),
        (0, 0),
        "all were passed"
    );
    // Events that were passed when they were younger, and whose letters were removed after that.
    kept.sql
        .execute_batch(
            "INSERT INTO freed SELECT i FROM
                (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) SELECT i FROM n);",
        )
        .unwrap();
    let an_hour_ago = kept.shared.now() - 3_600_000_000_000;
    kept.sql
        .execute("UPDATE ages SET at = ?1", [an_hour_ago])
        .unwrap();
    while kept.run() {}
    let changes = kept.sql.total_changes();
    for _ in 0..10 {
        assert!(!kept.run(), "nothing was removed");
    }
    assert_eq!(kept.sql.total_changes() - changes, 0);
    assert_eq!((kept.count("freed"), kept.count("freed_ids")), (0, 1500));
    age(&kept, 2000, 80);
    while kept.run() {}
    assert_eq!(kept.count("freed_ids"), 0, "they have their age");
}

/// Records that everything up to `position` came this many hours ago.
fn age(kept: &Kept, position: i64, hours: i64) {
    let at = kept.shared.now() - hours * 3_600_000_000_000;
    kept.sql
        .execute(
            "INSERT OR REPLACE INTO ages VALUES (?1, ?2)",
            [position, at],
        )
        .unwrap();
}

fn limit(bytes: u64) -> impl FnOnce(&Connection, PathBuf) -> Options {
    move |_, path| {
        let mut options = Options::new(path);
        options.retention.bytes = bytes;
        options
    }
}

#[tokio::test]
async fn ids_that_fluent_may_send_again_stay_and_the_file_is_full_of_them() {
    let mut kept = Kept::with(8000, limit(500_000)).await;
    age(&kept, 8000, 26);
    while kept.run() {}
    assert_eq!((kept.count("bodies"), kept.count("events")), (0, 8000));
    assert!(kept.is_full(), "of ids");
    age(&kept, 8000, 28);
    while kept.run() {}
    assert!(!kept.is_full());
    let left = kept.count("events");
    assert!(
        (1..8000).contains(&left),
        "no more went than had to: {left}"
    );
    let known_for = kept.shared.ids_known_for.load(Ordering::Relaxed);
    assert!((27 * 3600..72 * 3600).contains(&known_for), "{known_for}");
}

#[tokio::test]
async fn a_file_that_was_opened_again_counts_the_ids_that_are_there() {
    let mut kept = Kept::with(8000, limit(10 << 30)).await;
    kept.housekeeping.options.retention.age = Duration::from_hours(1);
    age(&kept, 7000, 80);
    age(&kept, 8000, 30);
    while kept.run() {}
    assert_eq!((kept.count("bodies"), kept.count("events")), (0, 1000));
    // Unsettled events fill the file.
    kept.sql
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 8001 UNION ALL SELECT i + 1 FROM n WHERE i < 9000)
             INSERT INTO events SELECT i, i, randomblob(32), 'sydney_sandbox', 'SHA512withRSA', x'00', 1, NULL, NULL, NULL FROM n;
             INSERT INTO bodies SELECT position, randomblob(1000) FROM events WHERE position > 8000;",
        )
        .unwrap();
    let mut options = kept.housekeeping.options.clone();
    options.retention.bytes = 600_000;
    let mut kept = Kept::of(kept.sql, options, kept.folder);
    while kept.run() {}
    assert!(kept.is_full());
    assert_eq!(kept.count("events"), 2000, "they are few");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_does_not_become_full_of_marks() {
    let mut kept = Kept::with(1, |_, path| {
        let retention = Retention {
            age: Duration::from_hours(1),
            bytes: 16 << 20,
        };
        Options {
            retention,
            ..Options::new(path)
        }
    })
    .await;
    let now = kept.shared.now();
    let transaction = kept.sql.transaction().unwrap();
    for number in 0..60_000 {
        let name = format!("same-id.notify-the-warehouse.{number:064}");
        same_ids::set(&transaction, &name, &[b'x'; 90], now).unwrap();
    }
    transaction.commit().unwrap();
    assert!(used_bytes(&kept.sql).unwrap() > 16 << 20, "more than fits");
    while kept.run() {}
    assert!(!kept.is_full());
    let used = used_bytes(&kept.sql).unwrap();
    assert!(
        (1 << 19..2 << 20).contains(&used),
        "a twentieth of the file is theirs: {used}"
    );
    assert!(same_ids::bytes(&kept.sql).unwrap() <= (16 << 20) / 20);
    let beside = SqliteStores::open(&kept.housekeeping.options.path, None).unwrap();
    let known_for = beside.health().await.unwrap().same_ids_known_for;
    assert!(
        known_for.is_some_and(|known_for| known_for < Duration::from_mins(10)),
        "operators learn that marks had to make room: {known_for:?}"
    );
}

/// Otherwise the event of before a moment with a wrong clock would be delivered once more.
#[tokio::test(flavor = "multi_thread")]
async fn marks_do_not_grow_old_by_a_clock_that_is_set() {
    #[derive(Debug)]
    struct TenYearsAhead;
    impl Clock for TenYearsAhead {
        fn now(&self) -> Timestamp {
            let set = SystemClock.now().as_second() + 10 * 366 * 24 * 3600;
            Timestamp::from_second(set).unwrap()
        }
    }
    let mut kept = Kept::with(1, |_, path| Options::new(path)).await;
    let age = QueueTime::recorded(&kept.sql, kept.shared.now()).unwrap();
    same_ids::set(&kept.sql, "same-id.r.1", b"x", age).unwrap();
    let (inbox, _) = inbox(Arc::clone(kept.shared.status()));
    kept.shared = Shared::new(String::new(), 0, inbox, Arc::new(TenYearsAhead));
    kept.run();
    let kept_mark = same_ids::get(&kept.sql, "same-id.r.1").unwrap();
    assert!(kept_mark.is_some());
}

#[tokio::test]
async fn one_event_that_keeps_failing_keeps_no_later_one_and_goes_when_it_ends() {
    let mut kept = Kept::with(8000, used_by(300)).await;
    kept.sql
        .execute(
            "INSERT INTO deliveries (route, position, redrive, in_flight, attempt, first_at, at)
             SELECT id, 1, 0, 0, 9, 1, 4000000000000000000 FROM routes",
            [],
        )
        .unwrap();
    while kept.run() {}
    assert!(!kept.is_full(), "all others made room");
    assert_eq!(kept.count("bodies WHERE position = 1"), 1, "it waits");
    age(&kept, 8000, 24 * 8);
    while kept.run() {}
    assert_eq!((kept.count("bodies"), kept.count("events")), (1, 1));
    kept.sql.execute("DELETE FROM deliveries", []).unwrap();
    while kept.run() {}
    let left = (
        kept.count("bodies"),
        kept.count("events"),
        kept.count("freed"),
    );
    assert_eq!(left, (0, 0, 0), "it ended, and went like the others");
}

/// What nearly every end of a delivery is: nothing was passed over for its sake.
#[tokio::test]
async fn the_end_of_a_delivery_that_no_pass_has_met_writes_nothing_more() {
    let mut kept = Kept::with(10, limit(10 << 30)).await;
    age(&kept, 5, 24 * 8);
    while kept.run() {}
    kept.sql
        .execute_batch(
            "INSERT INTO deliveries (route, position, redrive, in_flight, attempt, first_at, at)
             SELECT id, 6, 0, 1, 1, 1, 1 FROM routes; DELETE FROM deliveries;",
        )
        .unwrap();
    assert_eq!(kept.count("freed"), 0);
}

#[tokio::test]
async fn what_was_passed_over_in_a_full_file_leaves_only_its_id_when_it_ends() {
    let mut kept = Kept::with(2000, limit(100_000)).await;
    kept.sql
        .execute_batch(
            "INSERT INTO deliveries (route, position, redrive, in_flight, attempt, first_at, at)
             SELECT id, 1, 0, 0, 9, 1, 4000000000000000000 FROM routes;
             INSERT INTO attempts SELECT position, 'r', 0, 1, 1, 1, 'done', 200, 'x' FROM events;",
        )
        .unwrap();
    while kept.run() {}
    assert_eq!((kept.count("bodies"), kept.count("attempts")), (1, 1));
    kept.sql.execute("DELETE FROM deliveries", []).unwrap();
    while kept.run() {}
    assert_eq!((kept.count("bodies"), kept.count("attempts")), (0, 0));
    assert_eq!(kept.count("events"), 2000, "ids stay");
}
