//! A file of an older format is taken over with all it holds.

use std::sync::Arc;
use std::time::Duration;

use event_model::SystemClock;
use queue::conformance::event;
use queue::{
    Attempt, AttemptQuery, DeadReason, Intake, Lifecycle, Outcome, Route, Settlement, Source, Start, Terms,
    Verdict,
};
use queue_embedded::{Beside, Embedded, Options};

/// Takes away what the newest format has more than the one before it.
const WITHOUT_COUNTERS: &str = "
    DROP TRIGGER delivery_made; DROP TRIGGER delivery_changed; DROP TRIGGER delivery_ended;
    DROP TRIGGER letter_written; DROP TRIGGER letter_gone; DROP TRIGGER body_kept; DROP TRIGGER body_gone;
    DROP TABLE dead_counts; DROP TABLE body_count; DROP TABLE gaps; DROP TABLE ages; DROP TABLE freed;
    ALTER TABLE routes DROP COLUMN waiting; ALTER TABLE routes DROP COLUMN in_flight;";

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_file_without_refs_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let open = || Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    let queue = open();
    for number in 0..50 {
        queue.publish(event("E", &format!("HD_{number}"))).await.unwrap();
    }
    queue.close().await;
    drop(queue);
    let sql = rusqlite::Connection::open(&path).unwrap();
    let before = "DROP TABLE refs; DROP TABLE refused; DROP INDEX attempts_by_end; UPDATE meta SET value = 1 WHERE key = 'format';";
    sql.execute_batch(WITHOUT_COUNTERS).unwrap();
    sql.execute_batch(before).unwrap();
    drop(sql);

    let queue = open();
    queue.publish(event("LATER", "HD_7")).await.unwrap();
    let stories = queue.stores().history().find("HD_7", 9).await.unwrap();
    assert_eq!(stories.iter().map(|story| story.name.as_str()).collect::<Vec<_>>(), ["LATER", "E"]);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_of_a_file_of_before_are_listed_and_refused_webhooks_held() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let open = || Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    let queue = open();
    for number in 1..=3 {
        queue.publish(event("E", &format!("HD_{number}"))).await.unwrap();
    }
    let route = Route {
        name: "r".to_owned(),
        filter: Terms::default().into(),
        start: Start::Beginning,
        lease: Duration::from_secs(5),
    };
    let mut consumer = queue.subscribe(route).await.unwrap();
    let delivery = consumer.next(1).await.unwrap().remove(0);
    let attempt = Attempt {
        started_at: delivery.first_attempt_at,
        took: Duration::from_millis(3),
        outcome: Outcome::Done,
        status: None,
        detail: None,
    };
    delivery
        .ticket
        .settle(Settlement { verdict: Verdict::Done, asked: true, attempt: attempt.clone() })
        .await
        .unwrap();
    for verdict in [Verdict::Again(Duration::from_hours(1)), Verdict::Dead(DeadReason::Permanent)] {
        let delivery = consumer.next(1).await.unwrap().remove(0);
        delivery.ticket.settle(Settlement { verdict, asked: true, attempt: attempt.clone() }).await.unwrap();
    }
    drop(consumer);
    queue.close().await;
    drop(queue);
    let sql = rusqlite::Connection::open(&path).unwrap();
    let before = "DROP TABLE refused; DROP INDEX attempts_by_end;
                  ALTER TABLE deliveries DROP COLUMN asks_match;
                  ALTER TABLE deliveries DROP COLUMN asked;
                  UPDATE meta SET value = 2 WHERE key = 'format';";
    sql.execute_batch(WITHOUT_COUNTERS).unwrap();
    sql.execute_batch(before).unwrap();
    drop(sql);
    let said = Beside::open(&path, None).unwrap_err().to_string();
    assert!(said.contains("start the service anew"), "{said}");

    let queue = open();
    assert!(queue.set_aside().is_none());
    let query = AttemptQuery { limit: 5, ..AttemptQuery::default() };
    assert_eq!(queue.stores().history().attempts(query).await.unwrap().attempts.len(), 3);
    assert_eq!(queue.stores().refused().count().await.unwrap().webhooks, 0);
    let route = queue.stores().routes().await.unwrap().remove(0);
    assert_eq!((route.waiting, route.in_flight, route.dead, route.kept), (1, 0, 1, 3));
    queue.close().await;
}
