//! A route that is forgotten while it is served.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::{SystemClock, Timestamp};
use fluent_queue_embedded::{Embedded, Options, SqliteStores};
use futures::future::select;
use queue::conformance::event;
use queue::{
    Attempt, Consumer, DeadReason, Disposition, Intake, Lifecycle, MatchFields, Outcome,
    QueueError, Route, Settlement, Source, StartPosition, Stores,
};
use rusqlite::Connection;

fn serve(path: &Path) -> Embedded {
    Embedded::open(Options::new(path), Arc::new(SystemClock)).unwrap()
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

async fn until_nothing_is_left(path: &Path) {
    let began = Instant::now();
    let sql = Connection::open(path).unwrap();
    sql.busy_timeout(Duration::from_secs(20)).unwrap();
    let left = || {
        sql.query_row("SELECT count(*) FROM deliveries", [], |row| {
            row.get::<_, i64>(0)
        })
        .unwrap()
    };
    while left() > 0 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "what it had to deliver goes"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_is_forgotten_makes_no_attempt_that_it_had_still_to_make() {
    const MANY: usize = 60;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = serve(&path);
    let mut consumer = subscribe(&queue).await;
    for number in 0..MANY {
        queue
            .publish(event("E", &number.to_string()))
            .await
            .unwrap();
    }
    let mut taken = 0;
    while taken < MANY {
        for delivery in consumer.next(MANY).await.unwrap() {
            delivery
                .ticket
                .settle(settlement(Disposition::Again(Duration::ZERO)))
                .await
                .unwrap();
            taken += 1;
        }
    }
    // The deliveries are in the buffer, ready to be handed out.
    let first = consumer.next(1).await.unwrap().remove(0);
    SqliteStores::open(&path, None)
        .unwrap()
        .forget("r")
        .await
        .unwrap();
    let attempts = async {
        // Without deliveries, this waits for ever.
        let made = consumer.next(MANY).await.unwrap();
        panic!("{} are made", made.len());
    };
    let settled = async {
        let settled = first
            .ticket
            .settle(settlement(Disposition::Dead(DeadReason::Permanent)))
            .await;
        let why = settled.map_err(|unsettled| unsettled.source);
        assert!(
            matches!(why, Err(QueueError::LeaseLost)),
            "it would leave no letter: {why:?}"
        );
        until_nothing_is_left(&path).await;
    };
    select(pin!(attempts), pin!(settled)).await;
    drop(consumer);
    queue.close().await;
}
