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

/// `init` at `config`, and what it said.
fn init(config: &Path, region: &str) -> std::process::Output {
    let arguments = [
        "init",
        "--account",
        "ACME",
        "--environment",
        "sandbox",
        "--region",
        region,
    ];
    crate::pipeline::command(config, &arguments)
}

#[test]
fn what_init_makes_is_enough_to_begin_with() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("my/application.yml");
    let made = init(&config, "sydney");
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(made.status.success(), "{made:?}");
    for step in [
        "keys/sydney_sandbox.pem",
        "check --config",
        "order.json",
        "serve --config",
    ] {
        assert!(said.contains(step), "{step} in {said}");
    }
    let my = folder.path().join("my");
    let keys = fs::metadata(my.join("keys")).unwrap();
    assert_eq!(keys.permissions().mode() & 0o777, 0o700);
    let text = fs::read_to_string(&config).unwrap();
    let schema = text.lines().next().unwrap().rsplit_once('=').unwrap().1;
    let schema = fs::read_to_string(my.join(schema)).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&schema).unwrap()["properties"].is_object());
    assert!(
        !text.contains("\n        url:"),
        "nothing is posted anywhere: {text}"
    );

    let key = crate::pipeline::SANDBOX.public_base64().unwrap();
    fs::write(my.join("keys/sydney_sandbox.pem"), key).unwrap();
    let checked = crate::pipeline::command(&config, &["check"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{checked:?}");
    assert!(said.contains("http://127.0.0.1:8080/"), "{said}");
    let queue = my.join("data/queue.db");
    assert!(said.contains(&queue.display().to_string()), "{said}");
    let event = my.join("order.json");
    let event = event.to_str().unwrap();
    let tested = crate::pipeline::command(&config, &["routes", "test", "--event", event]);
    let said = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert!(
        tested.status.success() && said.contains("everything"),
        "{tested:?}"
    );
    assert_eq!(
        init(&config, "sydney").status.code(),
        Some(1),
        "it is there already"
    );
}

#[test]
fn init_knows_the_regions() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("application.yml");
    for (region, hint) in [
        ("sidney", "did you mean sydney?"),
        ("mars", "north_america"),
    ] {
        let output = init(&config, region);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(hint), "{said}");
        assert!(!config.exists());
    }
    assert!(init(&config, "north-america").status.success());
}
