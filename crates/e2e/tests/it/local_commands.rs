//! Commands that work on this machine only refuse `--server` before they do anything, and the
//! environment names a server as the options do.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::pipeline::{Pipeline, free_ports, signed};
use crate::sink::Sink;

const LOCAL: [&[&str]; 22] = [
    &["serve"],
    &["check"],
    &["check", "--against"],
    &["check", "--online"],
    &[
        "verify",
        "--body",
        "b.json",
        "--header",
        "fluent-signature: bm8=",
    ],
    &["processes", "list"],
    &["processes", "forget", "x"],
    &["events", "index"],
    &["reconcile", "--from", "1h", "--yes"],
    &["routes", "test", "--event", "e.json"],
    &["salvage", "old.db"],
    &["backup", "copy"],
    &["cluster", "init"],
    &["cluster", "check"],
    &["spool", "status"],
    &["spool", "list"],
    &["spool", "forget", "x", "--yes"],
    &["spool", "drain", "--path", "x"],
    &["init"],
    &["demo"],
    &["certificate", "--name", "x.test"],
    &["operator"],
];

fn run(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pipeline"))
        .args(args)
        .envs(environment.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_local_command_refuses_a_server_and_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for command in LOCAL {
        let args = [command, &["--server", "https://127.0.0.1:1"]].concat();
        let output = run(folder.path(), &args, &[]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
        assert!(
            said.contains("works on") && said.contains(" only: leave out --server"),
            "{command:?}: {said}"
        );
        let made = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(made, 0, "{command:?} made files");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_names_a_server_and_an_option_beats_it() {
    let sink = Sink::open().await;
    let (mut pipeline, grpc) = Pipeline::prepare_with_grpc(&sink.route("all", "match: {}"));
    pipeline.run();
    pipeline.accept(&signed("E", "ENV")).await;
    let nowhere = tempfile::tempdir().unwrap();
    let server = format!("http://{grpc}");
    let [closed] = free_ports();
    let closed = format!("http://{closed}");
    let named = [("FLUENT_WEBHOOKS_SERVER", &*server)];
    let routes = run(nowhere.path(), &["routes", "list", "--json"], &named);
    assert!(routes.status.success(), "{routes:?}");
    let beaten = run(
        nowhere.path(),
        &["routes", "list", "--server", &closed],
        &named,
    );
    assert!(
        stderr(&beaten).contains("nothing listens there"),
        "{beaten:?}"
    );
    // What can't work there works here, and says so.
    let checked = run(
        pipeline.folder.path(),
        &["check", "--config", pipeline.config().to_str().unwrap()],
        &named,
    );
    assert!(checked.status.success(), "{checked:?}");
    assert!(
        stderr(&checked).contains("not at the server of FLUENT_WEBHOOKS_SERVER"),
        "{checked:?}"
    );
    let token = [("FLUENT_WEBHOOKS_TOKEN_FILE", "no-such-token")];
    let without = run(
        nowhere.path(),
        &["routes", "list", "--server", &server],
        &token,
    );
    assert!(stderr(&without).contains("no-such-token"), "{without:?}");
    let alone = run(nowhere.path(), &["routes", "list", "--token", "t"], &[]);
    assert_eq!(alone.status.code(), Some(2), "{alone:?}");
    assert!(
        stderr(&alone).contains("say which with --server"),
        "{alone:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_names_the_place_that_it_is_about() {
    let sink = Sink::open().await;
    let (mut pipeline, grpc) =
        Pipeline::prepare_with_grpc(&sink.route("all", "match: { event: E }"));
    pipeline.run();
    pipeline.accept(&signed("F", "NOBODYS")).await;
    crate::pipeline::until("it is unrouted", || {
        pipeline.json(&["unrouted", "list"])[0]["event"] == "F"
    })
    .await;
    let server = format!("http://{grpc}");
    let asked = pipeline.command(&["unrouted", "discard", "--all", "--server", &server]);
    assert!(
        stderr(&asked).contains(&format!("Remove 1 event for good, at {server}?")),
        "{asked:?}"
    );
    let done = pipeline.command(&["unrouted", "discard", "--all", "--yes", "--server", &server]);
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(said.contains(&format!("1 removed, at {server}")), "{said}");
    assert_eq!(pipeline.stop(), Some(0));
    let here = pipeline.command(&["routes", "forget", "all"]);
    let said = stderr(&here);
    assert!(
        said.contains("on the queue ") && said.contains("queue.db?"),
        "{said}"
    );
}
