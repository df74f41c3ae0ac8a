//! Tests of the counters, which must agree with the rows after any change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use event_model::{Event, StoredEvent, SystemClock, Timestamp};
use queue::conformance::event;
use queue::{
    Attempt, DeadQuery, DeadReason, Delivery, Disposition, Intake, Lifecycle, MatchFields, Outcome,
    Route, Settlement, Source, StartPosition, Stores,
};
use rusqlite::{Connection, StatementStatus};
use tokio::time::timeout;

use crate::stores::routes::LOOK;
use crate::{Embedded, Options};

const ROUTES: [&str; 3] = ["r", "s", "t"];

fn serve(path: &Path, window: Duration) -> Embedded {
    let mut options = Options::new(path);
    // Bodies are removed while the test goes on.
    options.retention.age = Duration::ZERO;
    options.dedup_window = window;
    Embedded::open(options, Arc::new(SystemClock)).unwrap()
}

/// Dedup window with which ids stay during the test.
const DAYS: Duration = Duration::from_hours(72);

/// The query of [`LOOK`], by counting everything.
const COUNTED: &str = "
SELECT r.name, r.cursor, (SELECT count(*) FROM bodies b WHERE b.position > r.cursor),
    (SELECT count(*) FROM deliveries d WHERE d.route = r.id AND d.in_flight = 0),
    (SELECT count(*) FROM deliveries d WHERE d.route = r.id AND d.in_flight = 1),
    (SELECT count(*) FROM dead_letters l WHERE l.route = r.name), NULL,
    (SELECT count(*) FROM bodies)
FROM routes r ORDER BY r.id";

/// Name, cursor, behind, waiting, in flight, dead letters, bodies.
type Look = Vec<(String, [i64; 6])>;

fn look(sql: &Connection, text: &str, last: Option<i64>) -> Look {
    let mut statement = sql.prepare(text).unwrap();
    let bound: Vec<i64> = last.into_iter().collect();
    let rows = statement.query_map(rusqlite::params_from_iter(bound), |row| {
        Ok((
            row.get(0)?,
            [
                row.get(1)?,
                row.get(2)?,
                row.get(3)?,
                row.get(4)?,
                row.get(5)?,
                row.get(7)?,
            ],
        ))
    });
    rows.unwrap().collect::<rusqlite::Result<_>>().unwrap()
}

fn assert_counters(path: &Path, why: &str) {
    let mut sql = Connection::open(path).unwrap();
    sql.busy_timeout(Duration::from_secs(20)).unwrap();
    let moment = sql.transaction().unwrap();
    let last = i64::try_from(crate::file::schema::last_position(&moment).unwrap()).unwrap();
    assert_eq!(
        look(&moment, LOOK, Some(last)),
        look(&moment, COUNTED, None),
        "{why}"
    );
}

/// An event whose body is removed once every route has settled it.
fn old_event(reference: &str) -> Event {
    let event = event("E", reference);
    let received_at = Timestamp::from_second(1_000_000_000).unwrap();
    Event::restore(
        event.id(),
        StoredEvent {
            received_at,
            ..event.stored().clone()
        },
    )
    .unwrap()
}

fn settlement(disposition: Disposition) -> Settlement {
    let attempt = Attempt {
        started_at: Timestamp::UNIX_EPOCH,
        took: Duration::ZERO,
        outcome: Outcome::Transient,
        status: None,
        detail: None,
    };
    Settlement {
        disposition,
        asked: true,
        attempt,
    }
}

/// A queue, and operations on it in a random order.
struct Life {
    folder: tempfile::TempDir,
    number: u32,
    queue: Embedded,
    window: Duration,
    held: Vec<Delivery>,
    random: fastrand::Rng,
}

impl Life {
    fn path(&self) -> PathBuf {
        self.folder.path().join(format!("{}.db", self.number))
    }

    async fn step(&mut self) -> &'static str {
        match self.random.u32(0..20) {
            0..4 => self.publish().await,
            4..9 => self.take().await,
            9..14 => self.settle().await,
            14 | 15 => self.letters().await,
            16 => self.forget().await,
            17 => self.damage().await,
            18 => self.crash(),
            _ => self.wait().await,
        }
    }

    async fn publish(&mut self) -> &'static str {
        for _ in 0..self.random.usize(1..10) {
            let number = self.random.u32(0..100_000).to_string();
            self.queue.publish(old_event(&number)).await.unwrap();
        }
        "published"
    }

    async fn take(&mut self) -> &'static str {
        let name = self.random.choice(ROUTES).unwrap();
        let start = if self.random.bool() {
            StartPosition::Beginning
        } else {
            StartPosition::Now
        };
        let filter = MatchFields::default().into();
        let lease = Duration::from_secs(60);
        let route = Route {
            name: name.to_owned(),
            filter,
            start,
            lease,
        };
        let mut consumer = self.queue.subscribe(route).await.unwrap();
        let taken = timeout(
            Duration::from_millis(50),
            consumer.next(self.random.usize(1..8)),
        )
        .await;
        self.held.extend(taken.into_iter().flat_map(Result::unwrap));
        "taken"
    }

    async fn settle(&mut self) -> &'static str {
        let some = self.random.usize(0..=self.held.len());
        for delivery in self.held.split_off(some) {
            let disposition = match self.random.u32(0..5) {
                0 => Disposition::Again(Duration::ZERO),
                1 => Disposition::Again(Duration::from_hours(1)),
                2 => Disposition::Dead(DeadReason::Permanent),
                3 => {
                    drop(delivery);
                    continue;
                }
                _ => Disposition::Done,
            };
            // The lease of a delivery that was damaged or forgotten meanwhile is gone.
            let _ = delivery.ticket.settle(settlement(disposition)).await;
        }
        "settled"
    }

    async fn letters(&mut self) -> &'static str {
        let letters = self.queue.stores().dead_letters();
        let query = DeadQuery {
            limit: 4,
            ..DeadQuery::default()
        };
        let ids: Vec<u64> = letters
            .list(query)
            .await
            .unwrap()
            .iter()
            .map(|letter| letter.id)
            .collect();
        match self.random.bool() {
            true => drop(letters.redrive(&ids, None).await),
            false => drop(letters.discard(&ids).await),
        }
        "redrove, or discarded"
    }

    async fn forget(&mut self) -> &'static str {
        self.crash();
        let _ = self.queue.forget(self.random.choice(ROUTES).unwrap()).await;
        "forgot"
    }

    async fn damage(&mut self) -> &'static str {
        self.crash();
        let sql = Connection::open(self.path()).unwrap();
        sql.busy_timeout(Duration::from_secs(20)).unwrap();
        let some = "UPDATE bodies SET body = x'00' WHERE position = (SELECT position FROM bodies ORDER BY random() LIMIT 1)";
        sql.execute(some, []).unwrap();
        self.take().await;
        "damaged"
    }

    /// The file as kill -9 leaves it.
    fn crash(&mut self) -> &'static str {
        let before = self.path();
        self.number += 1;
        for end in ["", "-wal"] {
            let with = |path: &Path| format!("{}{end}", path.display());
            if Path::new(&with(&before)).exists() {
                std::fs::copy(with(&before), with(&self.path())).unwrap();
            }
        }
        self.queue = serve(&self.path(), self.window);
        self.held.clear();
        "crashed"
    }

    async fn wait(&mut self) -> &'static str {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "waited"
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_what_a_count_says_whatever_happens() {
    live(DAYS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_what_a_count_says_where_ids_go_with_their_bodies() {
    live(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_from_the_beginning_is_behind_by_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = serve(&path, Duration::ZERO);
    let route = |name: &str| {
        let filter = MatchFields::default().into();
        let lease = Duration::from_secs(60);
        Route {
            name: name.to_owned(),
            filter,
            start: StartPosition::Beginning,
            lease,
        }
    };
    let mut consumer = queue.subscribe(route("r")).await.unwrap();
    for number in 0..20 {
        queue
            .publish(event("E", &number.to_string()))
            .await
            .unwrap();
    }
    let mut settled = 0;
    while settled < 20 {
        for delivery in consumer.next(20).await.unwrap() {
            let is_dead = matches!(delivery.position.sequence(), 3 | 11);
            let disposition = if is_dead {
                Disposition::Dead(DeadReason::Permanent)
            } else {
                Disposition::Done
            };
            delivery
                .ticket
                .settle(settlement(disposition))
                .await
                .unwrap();
            settled += 1;
        }
    }
    let sql = Connection::open(&path).unwrap();
    let count = |what: &str| sql.query_row(what, [], |row| row.get::<_, i64>(0)).unwrap();
    let began = std::time::Instant::now();
    while count("SELECT count(*) FROM events") > 2 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "those of letters alone stay"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for number in 20..22 {
        queue
            .publish(event("E", &number.to_string()))
            .await
            .unwrap();
    }
    let _new = queue.subscribe(route("s")).await.unwrap();
    let states = queue.routes().await.unwrap();
    assert_eq!(
        states.iter().map(|state| state.behind).collect::<Vec<_>>(),
        [2, 4]
    );
    assert_counters(&path, "a route began");
    queue.close().await;
    drop(queue);
    // A route whose cursor is within a gap.
    sql.execute_batch("UPDATE routes SET cursor = 5 WHERE name = 's'")
        .unwrap();
    let ranges = |sql: &Connection| {
        let mut all = sql.prepare("SELECT first, last FROM gaps").unwrap();
        let ranges = all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        ranges
            .unwrap()
            .collect::<rusqlite::Result<Vec<(i64, i64)>>>()
            .unwrap()
    };
    let queue = serve(&path, Duration::ZERO);
    assert_eq!(ranges(&sql), [(1, 2), (4, 10), (12, 20)]);
    assert_counters(&path, "its cursor is within a gap");
    let letters = queue.stores().dead_letters();
    let query = DeadQuery {
        limit: 9,
        ..DeadQuery::default()
    };
    let ids: Vec<u64> = letters
        .list(query)
        .await
        .unwrap()
        .iter()
        .map(|letter| letter.id)
        .collect();
    letters.discard(&ids).await;
    queue.forget("s").await.unwrap();
    while count("SELECT count(*) FROM bodies") > 2 {
        assert!(
            began.elapsed() < Duration::from_mins(2),
            "the letters' bodies go"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ranges(&sql), [(1, 20)], "one, where they touch");
}

async fn live(window: Duration) {
    let folder = tempfile::tempdir().unwrap();
    let queue = serve(&folder.path().join("0.db"), window);
    let seed = fastrand::u64(..);
    let random = fastrand::Rng::with_seed(seed);
    let mut life = Life {
        folder,
        number: 0,
        queue,
        window,
        held: Vec::new(),
        random,
    };
    for step in 0..200 {
        let what = life.step().await;
        assert_counters(&life.path(), &format!("seed {seed}, step {step}: {what}"));
    }
    let sql = Connection::open(life.path()).unwrap();
    let count = |what: &str| sql.query_row(what, [], |row| row.get::<_, i64>(0)).unwrap();
    assert!(
        count("SELECT sum(last - first + 1) FROM gaps") > 0,
        "some went"
    );
}

/// A file with this many events, deliveries and letters on each of these routes.
async fn filled(path: &Path, routes: u32, events: u32) -> Connection {
    serve(path, DAYS).close().await;
    let sql = Connection::open(path).unwrap();
    sql.busy_timeout(Duration::from_secs(20)).unwrap();
    sql.execute_batch(&format!(
        "PRAGMA synchronous = OFF; BEGIN;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {routes})
         INSERT INTO routes (name, cursor) SELECT 'r' || i, 0 FROM n;
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {events})
         INSERT INTO events SELECT i, i, randomblob(32), 'sydney_sandbox', 'SHA512withRSA', x'00', 4000000000000000000, NULL, NULL, NULL FROM n;
         INSERT INTO bodies SELECT position, randomblob(100) FROM events;
         INSERT INTO deliveries (route, position, redrive, in_flight, attempt, first_at, at)
         SELECT 1, position, 0, 0, 1, 1, 4000000000000000000 FROM events;
         INSERT INTO dead_letters (route, position, redrive, reason, attempts, at)
         SELECT 'r1', position, 0, 'permanent', 1, 1 FROM events; COMMIT;"
    ))
    .unwrap();
    sql
}

fn steps(sql: &Connection) -> i32 {
    let mut look = sql.prepare(LOOK).unwrap();
    assert_eq!(look.query_map([9], |_| Ok(())).unwrap().count(), 2);
    look.get_status(StatementStatus::VmStep)
}

#[tokio::test]
async fn a_look_takes_the_same_steps_whatever_waits() {
    let folder = tempfile::tempdir().unwrap();
    let few = filled(&folder.path().join("few.db"), 2, 10).await;
    let many = filled(&folder.path().join("many.db"), 2, 5000).await;
    assert_eq!(steps(&few), steps(&many));
    assert_counters(&folder.path().join("many.db"), "made at once");
}
