//! Full, failing, damaged, and used twice.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use simulator::Retry;

use crate::json;
use crate::pipeline::{Pipeline, signed, until};
use crate::sink::Sink;

/// A service whose disk does as files in the returned folder say.
fn with_shim(routes: &str) -> (Pipeline, PathBuf) {
    let mut pipeline = Pipeline::prepare(routes);
    let folder = pipeline.folder.path().join("shim");
    pipeline.set_environment("LD_PRELOAD", &make_shim(&folder));
    pipeline.set_environment("SHIM", &folder);
    pipeline.run();
    (pipeline, folder)
}

/// Builds the library that makes disks fail, in `folder`.
pub(crate) fn make_shim(folder: &Path) -> PathBuf {
    fs::create_dir(folder).unwrap();
    let library = folder.join("shim.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/faults/shim.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status()
        .unwrap();
    assert!(
        built.success(),
        "a C compiler is needed, as for the product itself"
    );
    library
}

async fn status(pipeline: &Pipeline, reference: &str) -> u16 {
    pipeline
        .sender(Retry::Never)
        .send(&signed("E", reference))
        .await
        .answer
        .unwrap()
        .status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_a_503_until_there_is_room() {
    let sink = Sink::open().await;
    let (pipeline, folder) = with_shim(&sink.route("all", "match: {}"));
    assert_eq!(status(&pipeline, "BEFORE").await, 200);
    fs::write(folder.join("full"), "").unwrap();
    let refused = pipeline
        .sender(Retry::Never)
        .send(&signed("E", "DURING"))
        .await
        .answer
        .unwrap();
    assert_eq!(
        (refused.status, &refused.body["error"]),
        (503, &"unavailable".into())
    );
    until("it says that it is not ready", || !pipeline.is_ready()).await;
    fs::remove_file(folder.join("full")).unwrap();
    until("it is ready again, without being asked to store", || {
        pipeline.is_ready()
    })
    .await;
    assert_eq!(status(&pipeline, "AFTER").await, 200);
    let seen = || -> Vec<String> {
        let mut seen: Vec<_> = sink
            .requests()
            .iter()
            .map(|request| request.header("ce-subject").to_owned())
            .collect();
        seen.sort();
        seen
    };
    until("both arrived", || {
        seen().iter().any(|subject| subject == "ORDER/AFTER")
    })
    .await;
    assert_eq!(
        seen(),
        ["ORDER/AFTER", "ORDER/BEFORE"],
        "what was refused is not delivered, and what could not be settled meanwhile comes once"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_fsync_the_file_is_never_trusted_again() {
    let sink = Sink::open().await;
    let (mut pipeline, folder) = with_shim(&sink.route("all", "match: {}"));
    assert_eq!(status(&pipeline, "BEFORE").await, 200);
    until("it arrived", || sink.len() == 1).await;
    fs::write(folder.join("sync"), "").unwrap();
    let refused = pipeline
        .sender(Retry::Never)
        .send(&signed("E", "DURING"))
        .await;
    assert!(
        refused.answer.is_none_or(|answer| answer.status == 503),
        "no 200 without an fsync"
    );
    assert_eq!(
        pipeline.wait(),
        Some(1),
        "it ends, so that somebody starts it anew"
    );
    fs::remove_file(folder.join("sync")).unwrap();

    pipeline.run();
    assert!(pipeline.log().contains("set aside"), "{}", pipeline.log());
    assert_eq!(set_aside(&pipeline).len(), 1, "whole, beside the new one");
    assert_eq!(status(&pipeline, "AFTER").await, 200);
    until("it arrived", || {
        sink.requests()
            .iter()
            .any(|r| r.header("ce-subject") == "ORDER/AFTER")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_on_a_full_disk_goes_on_by_itself_and_forgets_nothing() {
    let sink = Sink::open().await;
    let (mut pipeline, folder) = with_shim(&sink.route("all", "match: {}"));
    let known = signed("E", "KNOWN");
    pipeline.accept(&known).await;
    pipeline.kill();
    fs::write(folder.join("full"), "").unwrap();
    pipeline.spawn();
    until("it says why it is not ready", || {
        pipeline
            .log()
            .contains("the disk of the queue file is full")
    })
    .await;
    until("so does whoever asks", || {
        pipeline.readiness().contains("disk that is full")
    })
    .await;
    fs::remove_file(folder.join("full")).unwrap();
    until("it is ready by itself", || pipeline.is_ready()).await;
    assert!(
        set_aside(&pipeline).is_empty(),
        "no room is not damage: {}",
        pipeline.log()
    );
    let again = pipeline
        .sender(Retry::Never)
        .send(&known)
        .await
        .answer
        .unwrap();
    assert_eq!(
        (again.status, &again.body["duplicate"]),
        (200, &true.into())
    );
}

/// The smallest limit there is, and a route that settles nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_full_of_unsettled_events_refuses_new_ones() {
    let mut pipeline = Pipeline::prepare(
        "    - { name: all, match: {}, dispatcher: misbehaving, concurrency: 1, misbehaving: { millis: 400 } }\n",
    );
    let text = fs::read_to_string(pipeline.config()).unwrap();
    let limited = text.replace("queue: {", "queue: { retention: { bytes: 16MiB },");
    fs::write(pipeline.config(), limited).unwrap();
    pipeline.run();
    let sender = pipeline.sender(Retry::Never);
    let large = |number: usize| {
        let pad = "x".repeat(60_000);
        let body = format!(
            r#"{{"id":"{number}","name":"E","accountId":"ACME","retailerId":"34","entityRef":"L_{number}","pad":"{pad}"}}"#
        );
        crate::pipeline::SANDBOX.sign(body).unwrap()
    };
    let mut accepted = 0;
    let refused = loop {
        let answer = sender.send(&large(accepted)).await.answer.unwrap();
        if answer.status != 200 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 2000, "it never fills");
    };
    assert_eq!(refused.status, 503);
    assert!(accepted > 200, "{accepted} of 60 kB are not 16 MiB");
    until("it says that it is not ready", || !pipeline.is_ready()).await;
    let why = pipeline.readiness();
    assert!(
        why.contains("\r\n\r\nnot ready: the queue is full"),
        "{why}"
    );
    let log = pipeline.log();
    let refusal = log
        .lines()
        .find(|line| line.contains("webhook not accepted"));
    let refusal = refusal.expect("a line of its own");
    assert!(refusal.contains("the queue is full"), "{refusal}");
    // What it knows is still known: a duplicate needs no room.
    let again = sender.send(&large(0)).await.answer.unwrap();
    assert_eq!(
        (again.status, &again.body["duplicate"]),
        (200, &true.into())
    );
}

/// Files that were set aside, without their logs.
fn set_aside(pipeline: &Pipeline) -> Vec<PathBuf> {
    let files = fs::read_dir(&pipeline.data)
        .unwrap()
        .map(|file| file.unwrap().path());
    let is_aside = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.contains(".damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
    };
    files.filter(is_aside).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_set_aside_whole_and_what_can_be_read_is_salvaged() {
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::start(
        "    - { name: all, match: {}, dispatcher: misbehaving, retry: { initial: 1h, max-delay: 1h, max-elapsed: 3d } }\n",
    );
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(
            pipeline
                .accept(&signed("E", &format!("FAIL_{number}")))
                .await,
        );
    }
    assert_eq!(pipeline.stop(), Some(0));
    let file = pipeline.data.join("queue.db");
    let mut bytes = fs::read(&file).unwrap();
    // The freelist's head, in the file's header: quick_check sees it, the rows are whole.
    bytes[32..40].copy_from_slice(&[0, 0, 0x7f, 0xff, 0, 0, 0, 9]);
    fs::write(&file, bytes).unwrap();

    pipeline.write_settings(&sink.route("all", "match: {}, start: beginning"));
    pipeline.run();
    let aside = set_aside(&pipeline);
    assert_eq!(aside.len(), 1, "{}", pipeline.log());
    pipeline.accept(&signed("E", "NEW")).await;
    until("the new one arrived", || sink.len() == 1).await;
    let busy = pipeline.command(&["salvage", aside[0].to_str().unwrap()]);
    assert!(!busy.status.success(), "not beside a running service");
    assert_eq!(pipeline.stop(), Some(0));
    let salvaged = pipeline.json(&["salvage", aside[0].to_str().unwrap()]);
    json::check("salvage", &salvaged, "salvaged-file");
    assert_eq!(
        (&salvaged["events"], &salvaged["lost"]),
        (&20.into(), &0.into()),
        "{salvaged}"
    );
    pipeline.run();
    until("the old ones arrived", || {
        ids.iter().all(|id| sink.counts().contains_key(id))
    })
    .await;
}

#[test]
fn two_processes_on_one_file_are_one_too_many() {
    let pipeline = Pipeline::start("    []\n");
    let second = pipeline.command(&["serve"]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        said.contains("is being served by another process"),
        "{said}"
    );
    assert!(pipeline.is_ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_costs_one_event_and_is_said() {
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::start(
        "    - { name: all, match: {}, dispatcher: misbehaving, misbehaving: { millis: 0 }, retry: { initial: 2s, max-delay: 2s, max-elapsed: 3d } }\n",
    );
    for reference in ["FAIL_A", "FAIL_FLIP", "FAIL_B"] {
        pipeline.accept(&signed("E", reference)).await;
    }
    assert_eq!(pipeline.stop(), Some(0));
    let file = pipeline.data.join("queue.db");
    let mut bytes = fs::read(&file).unwrap();
    let places: Vec<usize> = bytes
        .windows(9)
        .enumerate()
        .filter(|(_, w)| *w == b"FAIL_FLIP")
        .map(|(at, _)| at)
        .collect();
    for at in places {
        bytes[at + 5] ^= 1;
    }
    fs::write(&file, bytes).unwrap();
    pipeline.write_settings(&sink.route("all", "match: {}"));
    pipeline.run();
    until("the others arrived", || sink.len() == 2).await;
    until("the damaged one is kept apart", || {
        pipeline
            .json(&["quarantine", "list"])
            .to_string()
            .contains("damaged in the queue file")
    })
    .await;
    assert!(
        pipeline
            .log()
            .contains("damaged event moved to the quarantine")
    );
}
