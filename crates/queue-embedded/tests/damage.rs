//! Damage in the file: a row that makes no sense costs one event, not a route.

use std::sync::Arc;
use std::time::Duration;

use event_model::SystemClock;
use fluent_queue_embedded::{Embedded, Options};
use queue::conformance::event;
use queue::{Intake, Lifecycle, Pause, Route, RouteFilter, Source, StartPosition};

#[tokio::test(flavor = "multi_thread")]
async fn damaged_columns_cost_one_event_each_and_delay_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let open = || Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    let queue = open();
    for reference in ["a", "key", "algorithm", "id", "b"] {
        queue.publish(event("E", reference)).await.unwrap();
    }
    queue.close().await;
    drop(queue);
    let sql = rusqlite::Connection::open(&path).unwrap();
    for damage in [
        "key = 'nonsense' WHERE position = 2",
        "algorithm = 'x' WHERE position = 3",
        "id = x'00' WHERE position = 4",
    ] {
        sql.execute(&format!("UPDATE events SET {damage}"), [])
            .unwrap();
    }
    drop(sql);

    let queue = open();
    let lease = Duration::from_secs(30);
    let route = Route {
        name: "r".to_owned(),
        filter: RouteFilter::default(),
        start: StartPosition::Beginning,
        lease,
    };
    let mut consumer = queue.subscribe(route).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let next = tokio::time::timeout(Duration::from_secs(60), consumer.next(8)).await;
        let deliveries = next.expect("the others are delivered").unwrap();
        seen.extend(
            deliveries
                .iter()
                .map(|delivery| delivery.event.fields().entity_ref.clone().unwrap()),
        );
    }
    assert_eq!(seen, ["a", "b"]);
    let began = std::time::Instant::now();
    while queue.stores().quarantine().list(0, 10).await.unwrap().len() < 3 {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "the damaged ones are kept apart"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_crash_while_a_file_is_set_aside_does_not_part_it_from_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let beside = |suffix: &str| folder.path().join(format!("queue.db{suffix}"));
    for suffix in ["", "-wal", "-shm"] {
        std::fs::write(beside(suffix), suffix).unwrap();
    }
    // The plan with their new names was written, and one of them had been renamed.
    std::fs::write(beside(".setting-aside"), "123").unwrap();
    std::fs::rename(beside("-wal"), beside(".damaged-123-wal")).unwrap();
    let queue = Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    assert_eq!(queue.damaged_file(), Some(&beside(".damaged-123")));
    for suffix in ["", "-wal", "-shm"] {
        let moved = std::fs::read_to_string(beside(&format!(".damaged-123{suffix}")));
        assert_eq!(moved.unwrap(), suffix);
    }
    assert!(!beside(".setting-aside").exists());
    // A plan that was written empty does not count.
    drop(queue);
    std::fs::write(beside(".setting-aside"), "").unwrap();
    let queue = Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    assert_eq!(queue.damaged_file(), None);
}

/// Damages the freelist's head in the file's header, which only SQLite's own check sees.
#[tokio::test]
async fn damage_that_no_row_shows_is_found_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let open = || Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    let queue = open();
    queue.publish(event("E", "a")).await.unwrap();
    queue.close().await;
    drop(queue);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[32..40].copy_from_slice(&[0, 0, 0x7f, 0xff, 0, 0, 0, 9]);
    std::fs::write(&path, bytes).unwrap();
    assert!(open().damaged_file().is_some());
}

/// A publish that failed is not answered as stored, and the next process is told not to trust the
/// file.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_turns_out_damaged_while_it_is_served_takes_nothing_and_is_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let open = || Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    let queue = open();
    for number in 0..100 {
        queue
            .publish(event("E", &number.to_string()))
            .await
            .unwrap();
    }
    // Closed, so that everything is in the file and nothing in its log.
    queue.close().await;
    drop(queue);
    let queue = open();
    let length = usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xA5; length - 4096], 4096).unwrap();
    // Pages that the process has in memory are still good.
    let mut number = 0;
    while queue
        .publish(event("E", &format!("damaged {number}")))
        .await
        .is_ok()
    {
        number += 1;
        assert!(number < 1_000, "it writes into a file that makes no sense");
    }
    let after = queue.publish(event("E", "after")).await;
    assert!(
        matches!(after, Err(queue::QueueError::Failed(_))),
        "{after:?}"
    );
    assert!(
        folder.path().join("queue.db.untrusted").exists(),
        "word is left for the next start"
    );
    drop((queue, file));
    let queue = open();
    assert!(queue.damaged_file().is_some());
    assert!(!queue.publish(event("E", "after")).await.unwrap().duplicate);
}

/// A person paused it since its destination must not be asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_stays_paused_in_the_file_that_follows_one_that_was_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let open = || Embedded::open(Options::new(&path), Arc::new(SystemClock)).unwrap();
    let route = |name: &str| Route {
        name: name.to_owned(),
        filter: RouteFilter::default(),
        start: StartPosition::Now,
        lease: Duration::from_secs(30),
    };
    let queue = open();
    for name in ["erp", "wms"] {
        drop(queue.subscribe(route(name)).await.unwrap());
    }
    let pause = Pause {
        until: None,
        ..Pause::default()
    };
    queue
        .stores()
        .set_paused("erp", Some(&pause))
        .await
        .unwrap();
    queue.close().await;
    drop(queue);
    std::fs::write(path.with_extension("db.untrusted"), "as the test wants it").unwrap();

    let queue = open();
    assert!(queue.damaged_file().is_some());
    let mut erp = queue.subscribe(route("erp")).await.unwrap();
    let mut wms = queue.subscribe(route("wms")).await.unwrap();
    queue.publish(event("E", "a")).await.unwrap();
    assert_eq!(wms.next(1).await.unwrap().len(), 1);
    let states = queue.stores().routes().await.unwrap();
    let paused: Vec<_> = states
        .iter()
        .map(|state| (&*state.name, state.paused))
        .collect();
    assert_eq!(paused, [("erp", true), ("wms", false)]);
    queue.stores().set_paused("erp", None).await.unwrap();
    assert_eq!(erp.next(1).await.unwrap().len(), 1, "it has missed nothing");
}
