//! Salvage of a file that was set aside: what it publishes again, and what it leaves as it is.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use event_model::{SystemClock, Timestamp};
use fluent_queue_embedded::{Embedded, Options, SalvageReport, salvage};
use queue::conformance::event;
use queue::{
    Attempt, DeadReason, Disposition, Intake, Lifecycle, MatchFields, Outcome, Route, Settlement,
    Source, StartPosition,
};
use rusqlite::Connection;

const PAGE: u64 = 4096;

fn open(path: &Path) -> Embedded {
    Embedded::open(Options::new(path), Arc::new(SystemClock)).unwrap()
}

/// The references of the events that [`file`] leaves unsettled, in order.
const UNSETTLED: [&str; 3] = ["dead", "unread", "waiting"];

/// A file with five events, of which three are unsettled.
async fn file(folder: &Path) -> PathBuf {
    let path = folder.join("old.db");
    let queue = open(&path);
    let route = Route {
        name: "r".to_owned(),
        filter: MatchFields::default().into(),
        start: StartPosition::Beginning,
        lease: Duration::from_secs(60),
    };
    let mut consumer = queue.subscribe(route).await.unwrap();
    for reference in ["settled", "dead", "waiting", "settled too"] {
        queue.publish(event("E", reference)).await.unwrap();
        let delivery = consumer.next(1).await.unwrap().remove(0);
        let disposition = match reference {
            "dead" => Disposition::Dead(DeadReason::Permanent),
            "waiting" => Disposition::Again(Duration::from_hours(1)),
            _ => Disposition::Done,
        };
        delivery
            .ticket
            .settle(settlement(disposition))
            .await
            .unwrap();
    }
    drop(consumer);
    queue.close().await;
    drop(queue);
    let queue = open(&path);
    queue.publish(event("E", "unread")).await.unwrap();
    queue.close().await;
    path
}

fn settlement(disposition: Disposition) -> Settlement {
    let attempt = Attempt {
        started_at: Timestamp::UNIX_EPOCH,
        took: Duration::ZERO,
        outcome: Outcome::Done,
        status: None,
        detail: None,
    };
    Settlement {
        disposition,
        asked: true,
        attempt,
    }
}

/// Salvages into a new queue; returns the report, and which of all events it has then, in order.
async fn salvaged(old: &Path) -> (SalvageReport, Vec<&'static str>) {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(&folder.path().join("queue.db"));
    let report = salvage(old, &queue).await.unwrap();
    let mut found = Vec::new();
    for reference in ["dead", "settled", "settled too", "unread", "waiting"] {
        if !queue
            .stores()
            .history()
            .find(reference, 1)
            .await
            .unwrap()
            .is_empty()
        {
            found.push(reference);
        }
    }
    queue.close().await;
    (report, found)
}

/// Overwrites the first page of a table or an index.
fn damage(path: &Path, name: &str) {
    let sql = Connection::open(path).unwrap();
    let text = "SELECT rootpage FROM sqlite_master WHERE name = ?1";
    let page: u64 = sql
        .query_row(text, [name], |row| row.get::<_, i64>(0))
        .unwrap()
        .cast_unsigned();
    assert!(sql.pragma_query_value(None, "page_size", |row| row.get::<_, i64>(0)) == Ok(4096));
    drop(sql);
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0xA5; 4096], (page - 1) * PAGE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_some_route_has_not_settled_is_published_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path()).await;
    let (report, found) = salvaged(&path).await;
    assert_eq!((report.events, report.lost), (3, 0));
    assert_eq!(found, UNSETTLED);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_and_its_log_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path()).await;
    // The log has something that the file has not, as after a crash.
    let queue = open(&path);
    queue.publish(event("E", "in the log")).await.unwrap();
    let crashed = tempfile::tempdir().unwrap();
    let copy = crashed.path().join("old.db");
    let log = |path: &Path| path.with_extension("db-wal");
    fs::copy(&path, &copy).unwrap();
    fs::copy(log(&path), log(&copy)).unwrap();
    queue.close().await;
    let bytes = || (fs::read(&copy).unwrap(), fs::read(log(&copy)).unwrap());
    let before = bytes();
    let (report, _) = salvaged(&copy).await;
    assert_eq!(report.events, 4);
    assert!(before == bytes(), "something was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_whole_where_only_their_state_is_damaged() {
    for (damaged, published) in [
        (&["routes"][..], 5),
        (&["deliveries"], 3),
        (&["deliveries_by_position"], 3),
        (&["deliveries", "deliveries_by_position"], 5),
        (&["dead_letters"], 3),
        (&["dead_letters_by_position"], 3),
        (&["dead_letters", "dead_letters_by_position"], 5),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path()).await;
        damaged.iter().for_each(|name| damage(&path, name));
        let (report, found) = salvaged(&path).await;
        assert_eq!(
            (report.events, report.lost),
            (published, 0),
            "{damaged:?}: {found:?}"
        );
        assert!(
            UNSETTLED.iter().all(|one| found.contains(one)),
            "{damaged:?}: {found:?}"
        );
    }
}

/// In a file that was used for years nearly all positions are empty.
#[tokio::test(flavor = "multi_thread")]
async fn positions_without_an_event_are_skipped_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path()).await;
    let sql = Connection::open(&path).unwrap();
    for table in ["events", "bodies"] {
        sql.execute(
            &format!("UPDATE {table} SET position = 1 << 60 WHERE position = 5"),
            [],
        )
        .unwrap();
    }
    drop(sql);
    let (report, found) = salvaged(&path).await;
    assert_eq!((report.events, report.lost), (3, 0));
    assert_eq!(found, UNSETTLED);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_quarantine_that_can_not_be_read_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path()).await;
    let sql = Connection::open(&path).unwrap();
    for number in 1..4 {
        sql.execute(
            "INSERT INTO quarantine (digest, body, algorithm, key, signature, received_at, reason)
             VALUES (?1, CAST(?1 AS BLOB), 'SHA512withRSA', 'sydney_sandbox', x'00', 1, 'as the test wants it')",
            [number],
        )
        .unwrap();
    }
    drop(sql);
    let (report, _) = salvaged(&path).await;
    assert_eq!((report.quarantined, report.lost), (3, 0));
    damage(&path, "quarantine");
    let (report, _) = salvaged(&path).await;
    assert_eq!((report.events, report.quarantined, report.lost), (3, 0, 3));
}
