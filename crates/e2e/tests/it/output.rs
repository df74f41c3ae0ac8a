//! What commands print for programs: a row on each line, whole ids, exit codes and errors.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::pipeline::{Pipeline, signed, until};
use crate::sink::Sink;

/// Runs a command as in a pipe, without a terminal.
fn piped(pipeline: &Pipeline, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pipeline"))
        .args(args)
        .arg("--config")
        .arg(pipeline.config())
        .env_remove("COLUMNS")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_in_a_pipe_has_each_row_on_one_line_and_whole_ids() {
    let sink = Sink::open().await;
    let pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    let reference = "a-ref-of-many-words ".repeat(8);
    pipeline
        .accept(&signed("OrderStatusChange", &reference))
        .await;
    until("it is delivered", || {
        pipeline.json(&["deliveries"])[0]["outcome"] == "done"
    })
    .await;
    let id = pipeline.json(&["deliveries"])[0]["eventId"].clone();
    let id = id.as_str().unwrap();
    for command in [&["deliveries"][..], &["events", "list"]] {
        let printed = stdout(&piped(&pipeline, command));
        assert_eq!(printed.lines().count(), 2, "{command:?}: {printed}");
        assert!(printed.contains(id), "{command:?}: {printed}");
        assert!(printed.contains(reference.trim_end()), "{printed}");
    }
    let listed = pipeline.json(&["events", "list", "--event", "OrderStatusChange"]);
    assert_eq!(listed[0]["eventId"], id);
    let others = pipeline.json(&["events", "list", "--event", "Other"]);
    assert_eq!(others, json!([]));
    let shown = pipeline.json(&["events", "show", id]);
    assert_eq!(shown[0]["attempts"][0]["account"], "ACME", "{shown:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_errors_are_the_same_in_every_command() {
    let sink = Sink::open().await;
    let pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    for (args, code) in [
        (&["deliveries", "--outcome", "bogus"][..], 2),
        (&["dead-letters", "list", "--reason", "bogus"], 2),
        (&["events", "list", "--origin", "bogus"], 2),
        (&["events", "list", "--before", "bogus"], 2),
        (&["events", "show", "NOPE"], 1),
        (&["events", "body", "NOPE"], 1),
        (&["dead-letters", "show", "77"], 1),
        (&["jobs", "show", "77"], 1),
    ] {
        let plain = piped(&pipeline, args);
        assert_eq!(plain.status.code(), Some(code), "{args:?}: {plain:?}");
        assert!(stderr(&plain).contains("error: "), "{args:?}: {plain:?}");
        let with_json = piped(&pipeline, &[args, &["--json"]].concat());
        assert_eq!(
            with_json.status.code(),
            Some(code),
            "{args:?}: {with_json:?}"
        );
        // What the arguments themselves show to be wrong is said before any command begins.
        if code == 1 {
            let said = stderr(&with_json);
            let said: Value = serde_json::from_str(said.trim_end()).unwrap();
            assert_eq!(said["exitCode"], 1, "{args:?}: {said}");
            assert!(said["error"].is_string(), "{args:?}: {said}");
        }
    }
    let nothing = piped(&pipeline, &["events", "show", "NOPE", "--json"]);
    assert_eq!(stdout(&nothing), "[]\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let sink = Sink::open().await;
    let pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    pipeline.accept(&signed("E", "HD_1")).await;
    let config = pipeline.config();
    let config = ["--config", config.to_str().unwrap()];
    for command in [
        &["events", "body", "HD_1", config[0], config[1]][..],
        &["events", "show", "HD_1", config[0], config[1]],
        &["completion", "bash"],
        &["status", "--help"],
    ] {
        // Whoever reads has gone before anything is written.
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = Command::new(env!("CARGO_BIN_EXE_pipeline"))
            .args(command)
            .stdout(writer)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(ended.status.code(), Some(0), "{command:?}: {ended:?}");
        assert_eq!(stderr(&ended), "", "{command:?}");
    }
}
