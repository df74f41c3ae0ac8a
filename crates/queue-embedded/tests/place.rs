//! The location of the file: it must stay in its place, and be ours.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::{Clock, Event, KeyId, KeyName, Proof, SystemClock};
use fluent_queue_embedded::{Embedded, OpenError, Options};
use queue::conformance::event;
use queue::{Intake, Lifecycle, Quarantined, QueueError, Upstream};

fn open(path: &Path) -> Result<Embedded, OpenError> {
    Embedded::open(Options::new(path), Arc::new(SystemClock))
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
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
async fn nothing_is_accepted_into_a_file_that_nobody_will_find() {
    for (how, take_away) in WAYS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/queue.db");
        let queue = open(&path).unwrap();
        queue.publish(event("E", "before")).await.unwrap();
        take_away(&path);
        for number in 0..3 {
            let published = queue.publish(event("E", &format!("after {number}"))).await;
            assert!(
                matches!(published, Err(QueueError::Unavailable { .. })),
                "{how}: {published:?}"
            );
        }
        let why = queue.impediment();
        assert_eq!(
            why.as_deref(),
            Some("the queue's file is not in its place any more"),
            "{how}"
        );
        // Nor is an act of a person answered as done.
        let admitted = queue.stores().publish_if_new(event("E", "released")).await;
        assert!(
            matches!(admitted, Err(QueueError::Unavailable { .. })),
            "{how}: {admitted:?}"
        );
    }
}

/// The process that serves the file is the only one that can still read the log.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_removed_log_held_is_in_the_file() {
    for is_closed in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue.db");
        let queue = open(&path).unwrap();
        for number in 0..100 {
            queue
                .publish(event("E", &format!("{number}")))
                .await
                .unwrap();
        }
        fs::remove_file(path.with_extension("db-wal")).unwrap();
        if is_closed {
            queue.close().await;
        } else {
            // What another process would find now.
            let copy = folder.path().join("copy.db");
            until("it is saved", || {
                fs::copy(&path, &copy).unwrap();
                let sql = rusqlite::Connection::open(&copy).unwrap();
                let events = sql.query_row("SELECT count(*) FROM events", [], |row| {
                    row.get::<_, i64>(0)
                });
                events.is_ok_and(|events| events == 100)
            })
            .await;
            assert!(!queue.has_room(), "it is not ready");
        }
        drop(queue);
        let queue = open(&path).unwrap();
        assert_eq!(queue.horizon().await.unwrap().last.sequence(), 100);
        assert_eq!(queue.damaged_file(), None);
        queue.publish(event("E", "after")).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_taken_is_noticed_while_nobody_sends_and_good_again_once_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = open(&path).unwrap();
    queue.publish(event("E", "before")).await.unwrap();
    fs::rename(&path, folder.path().join("away")).unwrap();
    until("it is noticed", || !queue.has_room()).await;
    fs::rename(folder.path().join("away"), &path).unwrap();
    until("it is back", || queue.has_room()).await;
    assert_eq!(
        queue
            .publish(event("E", "after"))
            .await
            .unwrap()
            .position
            .sequence(),
        2
    );
    queue.close().await;
    drop(queue);
    assert_eq!(
        open(&path)
            .unwrap()
            .horizon()
            .await
            .unwrap()
            .last
            .sequence(),
        2
    );
}

#[tokio::test]
async fn a_file_is_served_once_by_whatever_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let names = ["link.db", "hard.db", "folder/queue.db"].map(|name| folder.path().join(name));
    let queue = open(&path).unwrap();
    queue.publish(event("E", "a")).await.unwrap();
    symlink("queue.db", &names[0]).unwrap();
    fs::hard_link(&path, &names[1]).unwrap();
    symlink(".", folder.path().join("folder")).unwrap();
    for name in &names {
        let opened = open(name);
        assert!(
            matches!(opened, Err(OpenError::InUse(_))),
            "{}: {opened:?}",
            name.display()
        );
    }
    // The file itself is locked too, not only the lock file beside it.
    fs::remove_file(folder.path().join("queue.db.lock")).unwrap();
    assert!(matches!(open(&path), Err(OpenError::InUse(_))));
    queue.close().await;
    drop(queue);
    let queue = open(&names[0]).unwrap();
    queue.publish(event("E", "b")).await.unwrap();
    assert!(
        !folder.path().join("link.db-wal").exists(),
        "the log is beside the file, not beside a link"
    );
    drop(queue);
}

#[tokio::test]
async fn a_link_that_leads_elsewhere_now_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("one")).unwrap();
    fs::create_dir(at("other")).unwrap();
    symlink("one", at("data")).unwrap();
    let queue = open(&at("data/queue.db")).unwrap();
    queue.publish(event("E", "before")).await.unwrap();
    fs::remove_file(at("data")).unwrap();
    symlink("other", at("data")).unwrap();
    assert!(matches!(
        queue.publish(event("E", "after")).await,
        Err(QueueError::Unavailable { .. })
    ));
}

#[test]
fn a_file_that_is_served_through_a_link_that_leads_nowhere_yet_is_made_where_it_leads() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("volume")).unwrap();
    symlink("volume/queue.db", folder.path().join("queue.db")).unwrap();
    let _queue = open(&folder.path().join("queue.db")).unwrap();
    assert!(folder.path().join("volume/queue.db").is_file());
    assert!(folder.path().join("volume/queue.db.lock").is_file());
}

#[test]
fn what_is_not_ours_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let make = |name: &str, text: &str| {
        let sql = rusqlite::Connection::open(path(name)).unwrap();
        sql.execute_batch(text).unwrap();
    };
    make(
        "customers.db",
        "CREATE TABLE customers (name); INSERT INTO customers VALUES ('x')",
    );
    make(
        "walled.db",
        "PRAGMA journal_mode = WAL; CREATE TABLE customers (name)",
    );
    make(
        "named.db",
        "PRAGMA application_id = 77; CREATE TABLE meta (key, value)",
    );
    make(
        "browser.db",
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value); INSERT INTO meta VALUES ('format', 8)",
    );
    fs::write(path("key.pem"), "-----BEGIN PRIVATE KEY-----\n").unwrap();
    fs::write(path("notes.txt"), "x").unwrap();
    for file in fs::read_dir(folder.path()).unwrap() {
        fs::set_permissions(file.unwrap().path(), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let listed = || {
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let before_all = listed();
    for name in [
        "customers.db",
        "walled.db",
        "named.db",
        "browser.db",
        "key.pem",
        "notes.txt",
    ] {
        let before = fs::read(path(name)).unwrap();
        // Twice, so that nothing the first try leaves makes the second one succeed.
        for _ in 0..2 {
            let said = open(&path(name)).unwrap_err();
            assert!(matches!(said, OpenError::Foreign { .. }), "{name}: {said}");
        }
        assert_eq!(fs::read(path(name)).unwrap(), before, "{name}");
        let rights = fs::metadata(path(name)).unwrap().permissions();
        assert_eq!(rights.mode() & 0o777, 0o644, "{name}");
    }
    assert_eq!(listed(), before_all);
    // An empty file may become ours.
    fs::write(path("empty.db"), "").unwrap();
    assert!(open(&path("empty.db")).is_ok());
}

#[tokio::test]
async fn our_own_file_is_set_aside_also_where_its_first_bytes_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = open(&path).unwrap();
    queue.publish(event("E", "a")).await.unwrap();
    queue.close().await;
    drop(queue);
    let mut bytes = fs::read(&path).unwrap();
    bytes[..100].fill(0xA5);
    fs::write(&path, bytes).unwrap();
    let queue = open(&path).unwrap();
    assert!(queue.damaged_file().is_some());
    queue.publish(event("E", "b")).await.unwrap();
    assert!(
        matches!(open(&path), Err(OpenError::InUse(_))),
        "the new one is locked"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_job_that_the_file_refuses_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = open(&path).unwrap();
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(
            "CREATE TRIGGER refuses BEFORE INSERT ON events WHEN new.entity_ref = 'poison'
             BEGIN SELECT RAISE(ABORT, 'not this one'); END",
        )
        .unwrap();
    for round in 0..10 {
        let all: Vec<Event> = (0..20)
            .map(|number| {
                event(
                    "E",
                    &if number == 7 {
                        "poison".to_owned()
                    } else {
                        format!("{round}-{number}")
                    },
                )
            })
            .collect();
        let published =
            futures::future::join_all(all.into_iter().map(|event| queue.publish(event))).await;
        let failed: Vec<_> = published
            .iter()
            .enumerate()
            .filter(|(_, published)| published.is_err())
            .collect();
        assert!(
            matches!(failed[..], [(7, Err(QueueError::Unavailable { .. }))]),
            "{failed:?}"
        );
    }
    queue.publish(event("E", "after")).await.unwrap();
    assert!(queue.has_room() && !folder.path().join("queue.db.untrusted").exists());
    queue.close().await;
    drop(queue);
    let queue = open(&path).unwrap();
    assert_eq!(
        (
            queue.damaged_file(),
            queue.horizon().await.unwrap().last.sequence()
        ),
        (None, 191)
    );
}

/// A genuine body of a mebibyte that is no event.
fn malformed(number: usize) -> Quarantined {
    Quarantined {
        id: 0,
        body: format!("{number}{}", "x".repeat(1 << 20)).into(),
        proof: Proof::Signed(event_model::Algorithm::Sha512),
        key: KeyId::any_named("a_sandbox".parse::<KeyName>().unwrap()),
        signature: String::new(),
        received_at: SystemClock.now(),
        reason: "no JSON".to_owned(),
    }
}

#[tokio::test]
async fn the_quarantine_has_room_for_what_comes_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(&folder.path().join("queue.db")).unwrap();
    let quarantine = queue.stores().quarantine();
    for _ in 0..70 {
        quarantine.store(malformed(0)).await.unwrap();
    }
    let mut kept = 1;
    while quarantine.store(malformed(kept)).await.is_ok() {
        kept += 1;
    }
    assert_eq!((kept, quarantine.count().await.unwrap()), (63, 63));
    quarantine
        .store(malformed(5))
        .await
        .expect("it is there already, and needs no room");
}

/// The smallest file there may be.
#[tokio::test]
async fn what_is_quarantined_leaves_a_small_file_to_events() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path().join("queue.db"));
    options.retention.bytes = 16 << 20;
    let queue = Embedded::open(options, Arc::new(SystemClock)).unwrap();
    let quarantine = queue.stores().quarantine();
    let mut kept = 0;
    while quarantine.store(malformed(kept)).await.is_ok() {
        kept += 1;
        assert!(kept < 16, "it takes the whole file");
    }
    assert_eq!(kept, 3, "two bodies of the largest size, at least");
    for number in 0..1000 {
        let event = event("E", &number.to_string());
        queue.publish(event).await.expect("events have their room");
    }
    assert!(queue.has_room());
}
