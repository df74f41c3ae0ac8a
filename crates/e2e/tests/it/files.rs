//! What a run leaves on the disk, and who may read it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::pipeline::{Pipeline, signed, until};
use crate::sink::Sink;

/// Of every file and folder in here, but for what the test itself has written.
fn modes(folder: &Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            found.extend(modes(&entry.path()));
        }
        found.push((
            entry.path().display().to_string(),
            metadata.permissions().mode() & 0o777,
        ));
    }
    let by_test = ["application.yml", "serve.log"];
    found.retain(|(name, _)| !by_test.iter().any(|suffix| name.ends_with(suffix)));
    found
}

/// A service that had work, and commands beside it.
async fn a_run(more: &str) -> Vec<(String, u32)> {
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::prepare(&sink.route("all", "match: {}"));
    more.clone_into(&mut pipeline.more);
    pipeline.write_settings(&sink.route("all", "match: {}"));
    pipeline.run();
    pipeline.accept(&signed("E", "HD_1")).await;
    until("it arrived", || sink.len() == 1).await;
    assert!(
        pipeline
            .command(&["routes", "pause", "all"])
            .status
            .success()
    );
    let made = pipeline.folder.path().join("made/config/application.yml");
    let init = [
        "init",
        "--account",
        "ACME",
        "--region",
        "sydney",
        "--environment",
        "sandbox",
    ];
    assert!(crate::pipeline::command(&made, &init).status.success());
    let found = modes(pipeline.folder.path());
    for expected in [
        "queue.db",
        "queue.db-wal",
        "queue.db-shm",
        "queue.db.lock",
        "audit.jsonl",
        "data",
    ] {
        assert!(
            found.iter().any(|(name, _)| name.ends_with(expected)),
            "{expected} in {found:?}"
        );
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_leaves_is_its_owners_alone() {
    let open: Vec<_> = a_run("")
        .await
        .into_iter()
        .filter(|(_, mode)| mode & 0o077 != 0)
        .collect();
    assert!(open.is_empty(), "{open:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_setting_lets_the_group_read_and_others_never() {
    let found = a_run("  files: { group-readable: true }\n").await;
    let open: Vec<_> = found.iter().filter(|(_, mode)| mode & 0o027 != 0).collect();
    assert!(open.is_empty(), "{open:?}");
    let is_data = |name: &str| name.contains("/data");
    let closed: Vec<_> = found
        .iter()
        .filter(|(name, mode)| is_data(name) && mode & 0o040 == 0)
        .collect();
    assert!(closed.is_empty(), "{closed:?}");
}
