//! A backup beside a server under load, and the way back from it.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::ledger::Load;
use e2e::sink::HANGS;

use crate::pipeline::{Pipeline, signed, until};
use crate::sink::{Sink, status};

/// A destination that is away until it is told to be there.
async fn away() -> (Sink, Arc<AtomicBool>) {
    let is_there = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_there);
    let sink = Sink::answering(move |_, _| {
        let is_there = asked.load(Ordering::Relaxed);
        status(if is_there { 200 } else { 503 })
    });
    (sink.await, is_there)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Puts the files of a backup in the place of the lost ones, as the how-to says.
fn restore(backup: &Path, data: &Path) {
    fs::create_dir_all(data).unwrap();
    for file in fs::read_dir(backup).unwrap().map(Result::unwrap) {
        fs::copy(file.path(), data.join(file.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_restored_misses_nothing_that_was_accepted_before_it() {
    let (sink, is_there) = away().await;
    let hanging = Sink::answering(|_, before| status(if before == 0 { HANGS } else { 200 })).await;
    let routes = sink.route(
        "later",
        "match: {}, breaker: off, concurrency: 64, retry: { initial: 200ms, max-delay: 500ms }",
    ) + &hanging
        .route("hangs", "match: { event: HANGS }")
        .replace("/hangs\"", "/hangs\", timeout: 60s");
    let mut pipeline = Pipeline::start(&routes);
    pipeline.accept(&signed("HANGS", "IN_FLIGHT")).await;
    until("it is being attempted", || hanging.len() == 1).await;
    // Much, but not so much that two cores do nothing else.
    let load = Load::paced(&[pipeline.url()], 4, Duration::from_millis(10));
    until("a few hundred came", || load.accepted() >= 300).await;

    let before: HashSet<String> = load.ledger.accepted.lock().unwrap().clone();
    let backup = pipeline.folder.path().join("backup/first");
    let to = backup.to_str().unwrap();
    let made = pipeline.json(&["backup", to]);
    assert_eq!(hanging.len(), 1, "it is still its first attempt");
    assert!(made["queue"]["events"].as_u64().unwrap() >= before.len() as u64);
    let during = load.accepted();
    until("the server goes on", || load.accepted() > during + 50).await;
    pipeline.kill();
    let (_, accepted) = load.stop().await;
    assert!(accepted.len() > before.len());
    fs::remove_dir_all(&pipeline.data).unwrap();

    restore(&backup, &pipeline.data);
    is_there.store(true, Ordering::Relaxed);
    let earlier = sink.len();
    pipeline.run();
    let arrived = || -> HashSet<String> {
        let requests = sink.requests().split_off(earlier);
        let id = |request: &crate::sink::Request| request.header("ce-id").to_owned();
        requests.iter().map(id).collect()
    };
    until("everything of before the backup is delivered", || {
        before.is_subset(&arrived())
    })
    .await;
    // What was in flight at the moment is tried again, and nothing is blamed on it.
    until("what hung is done", || hanging.len() == 2).await;
    until("it is settled", || {
        let story = pipeline.json(&["events", "show", "IN_FLIGHT"]);
        story.to_string().contains("\"done\"")
    })
    .await;
    let story = pipeline.json(&["events", "show", "IN_FLIGHT"]).to_string();
    assert!(!story.contains("died"), "{story}");
    assert_eq!(pipeline.stop(), Some(0));
    assert!(!pipeline.log().contains("set aside"), "{}", pipeline.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_its_owners_alone_says_what_it_holds_and_replaces_nothing() {
    let sink = Sink::answering(|_, before| status(if before == 0 { 422 } else { 200 })).await;
    let pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    pipeline.accept(&signed("E", "DEAD")).await;
    let letters = || pipeline.json(&["dead-letters", "list"]);
    until("it is dead", || letters().as_array().unwrap().len() == 1).await;
    // An entry in the audit log.
    pipeline.command(&["routes", "pause", "all"]);

    let backup = pipeline.folder.path().join("backups/today");
    let to = backup.to_str().unwrap();
    let output = pipeline.command(&["backup", to]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    for part in ["queue.db", "1 events", "1 dead letters", "audit.jsonl"] {
        assert!(said.contains(part), "expected {part:?} in {said}");
    }
    assert_eq!(mode(&backup), 0o700);
    let mut names = Vec::new();
    for file in fs::read_dir(&backup).unwrap().map(Result::unwrap) {
        assert_eq!(mode(&file.path()), 0o600, "{file:?}");
        names.push(file.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["audit.jsonl", "queue.db"]);

    let bytes = fs::read(backup.join("queue.db")).unwrap();
    let again = pipeline.command(&["backup", to]);
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(said.contains("has files in it"), "{said}");
    assert_eq!(fs::read(backup.join("queue.db")).unwrap(), bytes);
}

#[test]
fn a_backup_of_nothing_says_so_and_leaves_no_folder() {
    let pipeline = Pipeline::prepare("    []\n");
    let backup = pipeline.folder.path().join("backup");
    let output = pipeline.command(&["backup", backup.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("there is no queue at "), "{said}");
    assert!(!backup.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_fails_half_way_leaves_nothing_that_could_be_taken_for_one() {
    let sink = Sink::open().await;
    let pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    pipeline.accept(&signed("E", "KEPT")).await;
    // The queue is copied first; then a folder is where the audit log should be.
    fs::create_dir(pipeline.data.join("audit.jsonl")).unwrap();
    let backups = pipeline.folder.path().join("backups");
    let backup = backups.join("today");
    let failed = pipeline.command(&["backup", backup.to_str().unwrap()]);
    let said = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(failed.status.code(), Some(1), "{said}");
    assert!(said.contains("audit.jsonl"), "{said}");
    assert!(!backups.exists(), "the folders are gone that it has made");

    // A folder that was there stays, as it was.
    fs::create_dir_all(&backup).unwrap();
    let failed = pipeline.command(&["backup", backup.to_str().unwrap()]);
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(fs::read_dir(&backup).unwrap().count(), 0);
    fs::remove_dir(pipeline.data.join("audit.jsonl")).unwrap();
    let made = pipeline.command(&["backup", backup.to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
}
