//! A spool on a disk that is full, hangs, fails, or is taken away.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::{Clock, Event, EventId, StoredEvent, SystemClock};
use fluent_queue_spooled::{AcknowledgedRow, OpenError, Spool};
use queue::conformance::event;
use queue::{Intake, Lifecycle, Position, QueueError, Upstream};
use queue_embedded::{Embedded, Options};

const IN_TIME: Duration = Duration::from_secs(60);

fn open(path: &Path) -> Result<Spool<()>, OpenError> {
    Spool::open(
        path,
        1 << 30,
        Arc::new(SystemClock),
        Box::new(|_, _, ()| {}),
    )
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// An event of today with a body of this many bytes, and a few more.
fn large(number: usize, bytes: usize) -> Event {
    let small = event("E", &number.to_string());
    let body = String::from_utf8(small.body().to_vec()).unwrap();
    let more = format!(r#"{{"pad":"{}","#, "x".repeat(bytes));
    let body = body.replacen('{', &more, 1).into();
    let stored = StoredEvent {
        body,
        received_at: SystemClock.now(),
        ..small.stored().clone()
    };
    Event::restore(EventId::of(small.environment(), &stored.body), stored).unwrap()
}

/// A way to take the file away.
type Takes = fn(&Path);

const WAYS: [(&str, Takes); 5] = [
    ("its index removed", |path| {
        fs::remove_file(path.with_extension("db-shm")).unwrap()
    }),
    ("removed", |path| fs::remove_file(path).unwrap()),
    ("its log removed", |path| {
        fs::remove_file(path.with_extension("db-wal")).unwrap()
    }),
    ("renamed", |path| {
        fs::rename(path, path.with_extension("old")).unwrap()
    }),
    ("its folder renamed, and another made", |path| {
        let folder = path.parent().unwrap();
        fs::rename(folder, folder.with_extension("old")).unwrap();
        fs::create_dir(folder).unwrap();
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_kept_in_a_file_that_nobody_will_find() {
    for (how, take_away) in WAYS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/spool.db");
        let spool = open(&path).unwrap();
        spool.keep(event("E", "before"), ()).await.unwrap();
        take_away(&path);
        let kept = spool.keep(event("E", "after"), ()).await;
        assert!(
            matches!(kept, Err(QueueError::Unavailable { .. })),
            "{how}: {kept:?}"
        );
        let why = spool.impediment();
        assert_eq!(
            why.as_deref(),
            Some("the spool's file is not in its place any more"),
            "{how}"
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let spool = open(&path).unwrap();
    spool.keep(event("E", "before"), ()).await.unwrap();
    // What its log held is in the file for the next process.
    fs::remove_file(path.with_extension("db-wal")).unwrap();
    spool.close().await;
    drop(spool);
    let spool = open(&path).unwrap();
    assert_eq!(spool.state().await.unwrap().unsent, 1);
    fs::rename(&path, folder.path().join("away")).unwrap();
    until("it is noticed", || !spool.has_room()).await;
    fs::rename(folder.path().join("away"), &path).unwrap();
    until("it is back", || spool.has_room()).await;
    spool.keep(event("E", "after"), ()).await.unwrap();
    assert_eq!(spool.state().await.unwrap().unsent, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_keeps_no_more_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let spool: Spool<()> = Spool::open(
        &path,
        4 << 20,
        Arc::new(SystemClock),
        Box::new(|_, _, ()| {}),
    )
    .unwrap();
    let mut kept = 0;
    let refused = loop {
        assert!(kept < 100, "it keeps whatever comes");
        match spool.keep(large(kept, 100_000), ()).await {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, QueueError::Full), "{refused:?}");
    assert!(kept > 20 && !spool.has_room(), "{kept}");
    spool.remove((1..=20).collect()).await.unwrap();
    let began = Instant::now();
    while spool.keep(large(kept, 100_000), ()).await.is_err() {
        assert!(began.elapsed() < IN_TIME, "there is room again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn another_kind_of_file_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    queue.publish(event("E", "a")).await.unwrap();
    queue.close().await;
    drop(queue);
    let said = open(&path).err().unwrap().to_string();
    assert!(said.contains("is not a spool's file"), "{said}");
    let queue = Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    assert_eq!(
        (
            queue.damaged_file(),
            queue.horizon().await.unwrap().last.sequence()
        ),
        (None, 1)
    );
}

#[tokio::test]
async fn every_file_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let spool = open(&folder.path().join("data/spool.db")).unwrap();
    spool.keep(event("E", "a"), ()).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    let data = folder.path().join("data");
    assert_eq!(mode(&data) & 0o077, 0);
    let found: Vec<_> = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(found.len() >= 4, "{found:?}");
    assert!(
        found.iter().all(|path| mode(path) & 0o077 == 0),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_that_the_file_refuses_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let spool = open(&path).unwrap();
    let poison = event("E", "poison");
    let refuses = format!(
        "CREATE TRIGGER refuses BEFORE INSERT ON spooled WHEN new.id = x'{}'
         BEGIN SELECT RAISE(ABORT, 'not this one'); END",
        poison
            .id()
            .as_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    );
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(&refuses)
        .unwrap();
    for round in 0..10 {
        let all = (0..20).map(|number| match number {
            7 => poison.clone(),
            _ => event("E", &format!("{round}-{number}")),
        });
        let kept = futures::future::join_all(all.map(|event| spool.keep(event, ()))).await;
        let failed: Vec<_> = kept
            .iter()
            .enumerate()
            .filter(|(_, kept)| kept.is_err())
            .collect();
        assert!(
            matches!(failed[..], [(7, Err(QueueError::Unavailable { .. }))]),
            "{failed:?}"
        );
    }
    spool.keep(event("E", "after"), ()).await.unwrap();
    assert!(spool.has_room());
    assert_eq!(spool.state().await.unwrap().unsent, 191);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_already_needs_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let spool: Spool<()> = Spool::open(
        &path,
        1 << 20,
        Arc::new(SystemClock),
        Box::new(|_, _, ()| {}),
    )
    .unwrap();
    let first = large(0, 100_000);
    spool.keep(first.clone(), ()).await.unwrap();
    let mut number = 1;
    while spool.keep(large(number, 100_000), ()).await.is_ok() {
        number += 1;
        assert!(number < 100, "it keeps whatever comes");
    }
    assert!(spool.keep(first, ()).await.unwrap().is_duplicate);
}

/// A callback for stored events that panics must not damage the file, nor leave every caller
/// waiting.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_the_spool_and_says_nothing_against_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let panics = Box::new(|row, _, ()| assert!(row != 2, "as the test wants it"));
    let spool: Spool<()> = Spool::open(&path, 1 << 30, Arc::new(SystemClock), panics).unwrap();
    spool.keep(event("E", "a"), ()).await.unwrap();
    assert!(spool.keep(event("E", "b"), ()).await.is_err());
    until("it is noticed", || !spool.has_room()).await;
    assert!(spool.failure().is_some() && !folder.path().join("spool.db.untrusted").exists());
    assert!(spool.keep(event("E", "c"), ()).await.is_err());
    drop(spool);
    let spool = open(&path).unwrap();
    assert_eq!(
        (spool.damaged_file(), spool.state().await.unwrap().unsent),
        (None, 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_that_a_reader_holds_counts_and_begins_anew_once_the_reader_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let spool: Spool<()> = Spool::open(
        &path,
        24 << 20,
        Arc::new(SystemClock),
        Box::new(|_, _, ()| {}),
    )
    .unwrap();
    spool.keep(event("E", "a"), ()).await.unwrap();
    let reader = rusqlite::Connection::open(&path).unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM spooled")
        .unwrap();
    let began = Instant::now();
    let mut number = 0;
    // The file itself stays small, since each row is removed at once.
    while let Ok(kept) = spool.keep(large(number, 1 << 20), ()).await {
        spool.remove(vec![kept.row]).await.unwrap();
        number += 1;
        assert!(
            number < 500 && began.elapsed() < IN_TIME * 3,
            "the log grows without a bound"
        );
    }
    assert!(!spool.has_room());
    reader.execute_batch("COMMIT").unwrap();
    until("there is room again", || spool.has_room()).await;
    spool.keep(event("E", "after"), ()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_answers_what_was_handed_in_and_leaves_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spool.db");
    let spool = open(&path).unwrap();
    let kept: Vec<_> = (0..50)
        .map(|number| spool.keep(event("E", &number.to_string()), ()))
        .collect();
    spool.acknowledged(vec![AcknowledgedRow {
        row: 1,
        epoch: "e".to_owned(),
        position: Position::START,
    }]);
    spool.close().await;
    assert!(
        futures::future::join_all(kept)
            .await
            .iter()
            .all(Result::is_ok)
    );
    let log = fs::metadata(folder.path().join("spool.db-wal")).map_or(0, |metadata| metadata.len());
    assert_eq!(log, 0);
    drop(spool);
    let state = open(&path).unwrap().state().await.unwrap();
    assert_eq!((state.unsent, state.unconfirmed), (49, 1));
}
