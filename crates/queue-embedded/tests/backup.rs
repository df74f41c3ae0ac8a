//! A backup of a file that is served: the same events, ready to be served in their turn.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use event_model::{Bytes, Clock, FixedClock, SystemClock};
use fluent_queue_embedded::{CopyError, Embedded, Options, backup};
use queue::conformance::event;
use queue::processes::{ProcessReport, processes, set_process};
use queue::{
    Attempt, DeadQuery, DeadReason, Delivery, Disposition, FactAccess, Intake, Lifecycle,
    MatchFields, Outcome, Route, Settlement, Source, StartPosition, Stores, Upstream,
};
use tokio::time::timeout;

fn open(path: &Path) -> Embedded {
    Embedded::open(Options::new(path), Arc::new(SystemClock)).unwrap()
}

async fn next(queue: &Embedded) -> Delivery {
    let route = Route {
        name: "r".to_owned(),
        filter: MatchFields::default().into(),
        start: StartPosition::Beginning,
        lease: Duration::from_secs(30),
    };
    let mut consumer = queue.subscribe(route).await.unwrap();
    let next = timeout(Duration::from_secs(60), consumer.next(1)).await;
    next.unwrap().unwrap().pop().unwrap()
}

/// An event that is alone in flight when its process dies is a dead letter. That a backup was made
/// then is no death.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_waits_for_the_same_attempt_and_is_blamed_for_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("queue.db"), folder.path().join("copy"));
    let queue = open(&path);
    queue.publish(event("E", "a")).await.unwrap();
    let mut delivery = next(&queue).await;
    delivery.ticket.mark_exclusive().await.unwrap();
    let report = backup(&path, &copy, &SystemClock).unwrap();
    assert_eq!(
        (report.events, report.waiting, report.dead_letters),
        (1, 1, 0)
    );
    assert!(report.newest.is_some());

    let restored = open(&copy);
    let again = next(&restored).await;
    assert_eq!((again.attempt, again.deaths), (delivery.attempt, 0));
    assert_eq!(again.event.body(), delivery.event.body());
    let letters = restored.routes().await.unwrap();
    assert!(letters.iter().all(|route| route.dead == 0));
    // The first one goes on, in positions of its own.
    queue.publish(event("E", "b")).await.unwrap();
    assert_eq!(queue.horizon().await.unwrap().last.sequence(), 2);
    let epoch = async |queue: &Embedded| queue.horizon().await.unwrap().epoch;
    assert_ne!(epoch(&queue).await, epoch(&restored).await);
    queue.close().await;
    restored.close().await;
}

/// None of the processes that report on themselves in the original runs on the copy: whoever looks at
/// it must not hear that they are gone.
#[tokio::test(flavor = "multi_thread")]
async fn the_processes_of_the_original_have_ended_in_the_copy() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("queue.db"), folder.path().join("copy"));
    let queue = open(&path);
    let report = ProcessReport {
        kind: "serve".to_owned(),
        is_ready: true,
        routes: vec!["r".to_owned()],
        ..ProcessReport::default()
    };
    for id in ["serve.a", "dispatcher.b"] {
        set_process(queue.facts(), id, &report).await.unwrap();
    }
    // A fact of another kind, with a name that begins nearly so.
    let other = Bytes::from_static(br#"{"isClosed":false}"#);
    queue
        .facts()
        .set("process-like.c", other.clone())
        .await
        .unwrap();
    backup(&path, &copy, &SystemClock).unwrap();

    let restored = open(&copy);
    let found = processes(restored.facts()).await.unwrap();
    assert_eq!(found.len(), 2);
    for process in found {
        assert!(process.report.is_closed, "{}", process.id);
        assert_eq!(process.report.routes, ["r"], "the rest stays as it was");
    }
    let kept = restored.facts().get("process-like.c").await.unwrap();
    assert_eq!(kept, Some(other));
    let running = processes(queue.facts()).await.unwrap();
    assert!(running.iter().all(|process| !process.report.is_closed));
    queue.close().await;
    restored.close().await;
}

/// A drill restores the same backup as the day on which it is needed.
#[tokio::test(flavor = "multi_thread")]
async fn each_copy_that_is_served_gives_numbers_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let queue = open(&at("queue.db"));
    queue.publish(event("E", "a")).await.unwrap();
    settle(next(&queue).await, Disposition::Dead(DeadReason::Permanent)).await;
    backup(&at("queue.db"), &at("copy"), &SystemClock).unwrap();
    std::fs::copy(at("copy"), at("drill")).unwrap();
    let mut seen = vec![redriven(&queue).await];
    for (name, later) in [("drill", 1), ("copy", 2)] {
        let clock = FixedClock(SystemClock.now() + Duration::from_hours(later));
        let restored = Embedded::open(Options::new(at(name)), Arc::new(clock)).unwrap();
        seen.push(redriven(&restored).await);
        restored.close().await;
        drop(restored);
        // From then on it is one file.
        let again = open(&at(name));
        let epoch = again.horizon().await.unwrap().epoch;
        assert_eq!(format!("{epoch:?}"), seen[seen.len() - 1].0);
        again.close().await;
    }
    queue.close().await;
    let epochs: HashSet<_> = seen.iter().map(|(epoch, _)| epoch).collect();
    let numbers: HashSet<_> = seen.iter().map(|(_, number)| number).collect();
    assert_eq!((epochs.len(), numbers.len()), (3, 3), "{seen:?}");
}

/// Redrives the only dead letter; the file's epoch, and the number of the redrive.
async fn redriven(queue: &Embedded) -> (String, u32) {
    let query = DeadQuery {
        limit: 1,
        ..DeadQuery::default()
    };
    let letter = queue.dead_letters().list(query).await.unwrap().remove(0);
    let redriven = queue.dead_letters().redrive(&[letter.id], None).await;
    redriven.into_iter().for_each(|answer| answer.unwrap());
    let epoch = queue.horizon().await.unwrap().epoch;
    (format!("{epoch:?}"), next(queue).await.redrive)
}

async fn settle(delivery: Delivery, disposition: Disposition) {
    let attempt = Attempt {
        started_at: delivery.first_attempt_at,
        took: Duration::ZERO,
        outcome: Outcome::Permanent,
        status: None,
        detail: None,
    };
    let settlement = Settlement {
        disposition,
        asked: true,
        attempt,
    };
    delivery.ticket.settle(settlement).await.unwrap();
}

/// Pages of zeros where the events were: SQLite finds it while it copies.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_said_to_be_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let queue = open(&path);
    for number in 0..500 {
        queue
            .publish(event("E", &format!("e{number}")))
            .await
            .unwrap();
    }
    queue.close().await;
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let copy = folder.path().join("copy");
    let error = backup(&path, &copy, &SystemClock).unwrap_err();
    assert!(
        matches!(&error, CopyError::Damaged { path: named, .. } if *named == path),
        "{error:?}"
    );
    assert!(!copy.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_whole_or_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.db");
    let missing = backup(&path, &folder.path().join("copy"), &SystemClock).unwrap_err();
    assert!(
        missing.to_string().contains("there is no queue at"),
        "{missing}"
    );
    let queue = open(&path);
    queue.publish(event("E", "a")).await.unwrap();
    let taken = folder.path().join("taken");
    std::fs::write(&taken, "somebody's").unwrap();
    let refused = backup(&path, &taken, &SystemClock).unwrap_err();
    assert!(matches!(refused, CopyError::Exists(_)), "{refused}");
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "somebody's");
    let nowhere = folder.path().join("no/such/folder");
    assert!(backup(&path, &nowhere, &SystemClock).is_err());
    let names = std::fs::read_dir(folder.path()).unwrap();
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = names.filter(|name| name.contains("partial")).collect();
    assert_eq!(left, Vec::<String>::new());
    queue.close().await;
}
