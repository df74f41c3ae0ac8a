//! A machine's clock that is set while more deliveries wait than follow it at once, and a crash
//! among them.

#![cfg(feature = "failpoints")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use event_model::{Clock, Timestamp};
use fluent_queue_embedded::{Embedded, Options};
use queue::conformance::event;
use queue::{Consumer, Delivery, Intake, Lifecycle, MatchFields, Route, Source, StartPosition};
use rusqlite::Connection;
use tokio::time::timeout;

const MANY: i64 = 1700;
const HOUR: i64 = 3600;
const SECOND: i64 = 1_000_000_000;

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

async fn subscribe(queue: &Embedded) -> Box<dyn Consumer> {
    let route = Route {
        name: "r".to_owned(),
        filter: MatchFields::default().into(),
        start: StartPosition::Beginning,
        lease: Duration::from_secs(60),
    };
    queue.subscribe(route).await.unwrap()
}

async fn next(consumer: &mut dyn Consumer) -> Delivery {
    let next = timeout(Duration::from_secs(60), consumer.next(1)).await;
    next.unwrap().unwrap().pop().unwrap()
}

fn connect(path: &Path) -> Connection {
    let sql = Connection::open(path).unwrap();
    sql.busy_timeout(Duration::from_secs(20)).unwrap();
    sql
}

/// Deliveries by the seconds from `now` of when they are due and when they were first tried, each
/// with how many there are.
fn waiting(path: &Path, now: i64) -> Vec<(i64, i64, i64)> {
    connect(path)
        .prepare(
            "SELECT (at - ?1 + 500000000) / 1000000000, (first_at - ?1 + 500000000) / 1000000000, count(*)
             FROM deliveries WHERE in_flight = 0 AND redrive > 0 GROUP BY 1, 2 ORDER BY 1, 2",
        )
        .unwrap()
        .query_map([now], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

/// A file with many deliveries that are due in two hours, and were first tried an hour ago.
async fn file(path: &Path, wall: &Arc<Wall>, now: i64) {
    let queue = open(path, wall);
    queue.publish(event("E", "a")).await.unwrap();
    let mut consumer = subscribe(&queue).await;
    next(&mut *consumer).await;
    queue.close().await;
    connect(path)
        .execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
             INSERT INTO deliveries (route, position, redrive, in_flight, attempt, first_at, at, clock_set)
             SELECT r.id, 1, i, 0, 1, ?2, ?3, (SELECT max(id) FROM clock_sets) FROM n, routes r WHERE r.name = 'r'",
            [MANY, now - HOUR * SECOND, now + 2 * HOUR * SECOND],
        )
        .unwrap();
}

fn copy(from: &Path, to: &Path) {
    for end in ["", "-wal"] {
        let name = format!("queue.db{end}");
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_follow_the_clock_in_chunks_once_and_also_after_a_crash() {
    for (set, due, tried) in [(-HOUR, HOUR, -2 * HOUR), (HOUR, 2 * HOUR, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        let wall = Arc::new(Wall::default());
        let now = i64::try_from(wall.now().as_nanosecond()).unwrap();
        file(&path, &wall, now).await;
        let queue = open(&path, &wall);
        // The process stops after the first chunk, and may not go on until it is told to.
        let (stopped, is_stopped) = channel();
        let (go_on, may_go_on) = channel::<()>();
        let may_go_on = std::sync::Mutex::new(may_go_on);
        fail::cfg_callback("clock_set.after", move || {
            let _ = stopped.send(());
            let _ = may_go_on.lock().unwrap().recv();
        })
        .unwrap();
        wall.0.fetch_add(set, Ordering::Relaxed);
        is_stopped.recv_timeout(Duration::from_secs(60)).unwrap();
        let some = waiting(&path, now);
        assert_eq!(some.len(), 2, "some have followed {set} s: {some:?}");
        let killed = tempfile::tempdir().unwrap();
        copy(folder.path(), killed.path());
        fail::remove("clock_set.after");
        drop(go_on);
        drop(is_stopped);
        let crashed = killed.path().join("queue.db");
        let next_process = open(&crashed, &wall);
        for (path, queue) in [(&path, &queue), (&crashed, &next_process)] {
            let began = Instant::now();
            let pending = "SELECT count(*) FROM clock_sets WHERE due <> 0 OR tried <> 0";
            while connect(path).query_row(pending, [], |row| row.get::<_, i64>(0)) != Ok(0) {
                assert!(began.elapsed() < Duration::from_secs(60), "they follow");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let all = waiting(path, now);
            let is_near = |a: i64, b: i64| (a - b).abs() <= 2;
            assert!(
                all.iter()
                    .all(|it| is_near(it.0, due) && is_near(it.1, tried)),
                "{set} s: {all:?}"
            );
            assert_eq!(all.iter().map(|it| it.2).sum::<i64>(), MANY);
            queue.close().await;
        }
    }
}
