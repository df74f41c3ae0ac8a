//! What `--json` prints, here and at a server: as its schema says, with keys and values as
//! `docs/json.md` says.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use event_model::Timestamp;
use serde_json::Value;
use simulator::{KeyPair, Retry};

use crate::SANDBOX;
use crate::pipeline::{Pipeline, command, signed, until};
use crate::sink::{Sink, status};

/// The commands that print what a person asked about, each with its schema.
const READS: [(&[&str], &str); 15] = [
    (&["deliveries"], "attempts"),
    (&["events", "list"], "accepted-events"),
    (&["events", "show", "GOOD"], "events"),
    (&["events", "show", "DEAD"], "events"),
    (&["events", "body", "GOOD"], "event-body"),
    (&["dead-letters", "list"], "dead-letters"),
    (&["dead-letters", "show", "1"], "dead-letter"),
    (&["dead-letters", "show", "1", "--body"], "dead-letter"),
    (&["unrouted", "list"], "dead-letters"),
    (&["quarantine", "list"], "quarantined-webhooks"),
    (&["quarantine", "show", "1"], "quarantined-webhook"),
    (
        &["quarantine", "show", "1", "--body"],
        "quarantined-webhook",
    ),
    (&["refused", "list"], "refused-webhooks"),
    (&["refused", "explain", "1"], "explained-webhook"),
    (&["routes", "list"], "routes"),
];

/// The commands that change something, in an order in which each has something to do.
const CHANGES: [(&[&str], &str); 17] = [
    (&["routes", "send-test", "all"], "sent-test-event"),
    (
        &["replay", "--route", "all", "--from", "1h", "--dry-run"],
        "bulk-result",
    ),
    (
        &[
            "replay", "--route", "all", "--from", "1h", "--again", "--yes",
        ],
        "bulk-result",
    ),
    (
        &[
            "routes", "pause", "all", "--for", "1h", "--reason", "a test",
        ],
        "bulk-result",
    ),
    (&["routes", "list"], "routes"),
    (&["routes", "resume", "all"], "resumed"),
    (&["deliveries", "retry", "WAITS"], "retried"),
    (&["dead-letters", "redrive", "1"], "bulk-result"),
    (
        &[
            "unrouted", "redrive", "--all", "--to", "all", "--detach", "--why", "a test", "--yes",
        ],
        "job",
    ),
    (&["jobs", "list"], "jobs"),
    (&["unrouted", "discard", "--all", "--yes"], "bulk-result"),
    (
        &[
            "quarantine",
            "redrive",
            "--all",
            "--detach",
            "--why",
            "a test",
            "--yes",
        ],
        "job",
    ),
    (
        &[
            "refused",
            "recheck",
            "--account",
            "ACME",
            "--detach",
            "--why",
            "a test",
            "--yes",
        ],
        "job",
    ),
    (&["quarantine", "redrive", "--all", "--yes"], "bulk-result"),
    (&["quarantine", "discard", "--all", "--yes"], "bulk-result"),
    (&["refused", "recheck", "--yes"], "bulk-result"),
    (&["audit"], "audit"),
];

/// The commands that work on the settings, the queue and the files of this machine.
const LOCAL: [(&[&str], &str); 7] = [
    (&["processes", "list"], "processes"),
    (&["check"], "checked-settings"),
    (&["routes", "test", "--event", "BODY"], "tested-routes"),
    (&["backup", "FOLDER"], "backup"),
    (&["check", "--against"], "route-changes"),
    (&["spool", "list"], "spools"),
    (
        &[
            "verify",
            "--body",
            "BODY",
            "--header",
            "fluent-signature: bm8=",
        ],
        "verified-webhook",
    ),
];

fn schema(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json");
    let text = fs::read_to_string(folder.join(format!("{name}.schema.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Panics unless the output is as the schema and the rules say.
pub(crate) fn check(what: &str, printed: &Value, name: &str) {
    let validator = jsonschema::options()
        .should_validate_formats(true)
        .build(&schema(name))
        .unwrap();
    let wrong: Vec<_> = validator
        .iter_errors(printed)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(wrong.is_empty(), "{what}: {wrong:?} in {printed:#}");
    walk(what, printed);
}

fn walk(what: &str, value: &Value) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            let is_camel = key.starts_with(|c: char| c.is_ascii_lowercase())
                && key.chars().all(|c| c.is_ascii_alphanumeric());
            assert!(is_camel, "{what}: `{key}` is not camelCase");
            if key.ends_with("At") && !value.is_null() {
                let at = value.as_str().unwrap_or_default();
                assert!(is_time(at), "{what}: {key} is {value}");
            }
            walk(what, value);
        }),
        Value::Array(values) => values.iter().for_each(|value| walk(what, value)),
        Value::String(text) if text.starts_with("20") && text.as_bytes().get(4) == Some(&b'-') => {
            assert!(is_time(text), "{what}: {text} is no RFC 3339 in UTC");
        }
        _ => {}
    }
}

fn is_time(text: &str) -> bool {
    text.ends_with('Z')
        && text.as_bytes().get(10) == Some(&b'T')
        && text.parse::<Timestamp>().is_ok()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A service with something in every list, its address for people, and settings that open its
/// queue beside it.
async fn prepared(sink: &Sink) -> (Pipeline, String, PathBuf) {
    let routes = sink.route(
        "all",
        "match: { event: E }, retry: { initial: 1h, max-delay: 1h, max-elapsed: 3d }",
    );
    let (mut pipeline, grpc) = Pipeline::prepare_with_grpc(&routes);
    pipeline.run();
    let beside = pipeline.folder.path().join("beside.yml");
    let settings = fs::read_to_string(pipeline.config()).unwrap();
    let without: Vec<_> = settings
        .lines()
        .filter(|line| !line.contains("operator:"))
        .collect();
    fs::write(&beside, without.join("\n")).unwrap();
    for (name, reference) in [
        ("E", "GOOD"),
        ("E", "DEAD"),
        ("E", "WAITS"),
        ("F", "NOBODYS"),
    ] {
        pipeline.accept(&signed(name, reference)).await;
    }
    let sender = pipeline.sender(Retry::Never);
    let odd = SANDBOX
        .sign(*br#"{"accountId":"ACME","name":"E"}"#)
        .unwrap();
    drop(sender.send(&odd).await);
    let body = signed("E", "REFUSED").body;
    let forged = KeyPair::generate(1024).unwrap().sign(body).unwrap();
    drop(sender.send(&forged).await);
    let count = |args: &[&str]| pipeline.json(args).as_array().map_or(0, Vec::len);
    until("everything is where it belongs", || {
        count(&["deliveries", "--route", "all"]) == 3
            && count(&["dead-letters", "list"]) == 1
            && count(&["unrouted", "list"]) == 1
            && count(&["quarantine", "list"]) == 1
            && count(&["refused", "list"]) == 1
    })
    .await;
    (pipeline, format!("http://{grpc}"), beside)
}

async fn answering() -> Sink {
    Sink::answering(|request, _| match request.header("ce-subject") {
        "ORDER/DEAD" => status(422),
        "ORDER/WAITS" => status(503),
        _ => status(200),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_one_contract_here_and_at_a_server() {
    let sink = answering().await;
    let (pipeline, server, beside) = prepared(&sink).await;
    let at_server =
        |args: &[&str]| pipeline.command(&[args, &["--json", "--server", &server]].concat());
    until("the route is reported to run", || {
        let routes = json(&command(&beside, &["routes", "list", "--json"]));
        routes[0]["processes"] != serde_json::json!([])
    })
    .await;
    for (args, name) in READS {
        let there = json(&at_server(args));
        check(&args.join(" "), &there, name);
        let here = json(&command(&beside, &[args, &["--json"]].concat()));
        assert_eq!(here, there, "{args:?}");
    }
    check("status", &json(&at_server(&["status"])), "status");
    check(
        "status",
        &json(&command(&beside, &["status", "--json"])),
        "status",
    );
    let body = pipeline.folder.path().join("body.json");
    fs::write(&body, signed("E", "V").body).unwrap();
    let backup = pipeline.folder.path().join("backup");
    for (args, name) in LOCAL {
        let args: Vec<_> = args
            .iter()
            .map(|arg| match *arg {
                "BODY" => body.to_str().unwrap(),
                "FOLDER" => backup.to_str().unwrap(),
                arg => arg,
            })
            .collect();
        let here = json(&command(&beside, &[&args[..], &["--json"]].concat()));
        check(&args.join(" "), &here, name);
    }
    for (args, name) in CHANGES {
        check(&args.join(" "), &json(&at_server(args)), name);
    }
    let jobs = json(&at_server(&["jobs", "list"]));
    let id = jobs[0]["id"].as_str().unwrap();
    let failures = json(&at_server(&["jobs", "failures", id]));
    check("jobs failures", &failures, "job-failures");
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_prints_a_line_of_json_for_each_attempt() {
    let sink = answering().await;
    let (pipeline, server, _) = prepared(&sink).await;
    let mut tail = Command::new(env!("CARGO_BIN_EXE_pipeline"))
        .args(["tail", "--json", "--server", &server])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    // It shows what ends from its beginning on, which can't be seen from here: so more come.
    let reading = tokio::task::spawn_blocking(move || lines.next().unwrap().unwrap());
    let mut number = 0;
    while !reading.is_finished() {
        number += 1;
        assert!(number < 600, "nothing was printed");
        pipeline.accept(&signed("E", &format!("T_{number}"))).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let line: Value = serde_json::from_str(&reading.await.unwrap()).unwrap();
    check("tail", &line, "attempt");
    tail.kill().unwrap();
    tail.wait().unwrap();
}

/// Every schema of `docs/json` is met by an output, in this folder's tests.
#[test]
fn every_schema_meets_an_output() {
    let tests = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it"));
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json");
    for schema in fs::read_dir(schemas).unwrap() {
        let file = schema.unwrap().file_name().into_string().unwrap();
        let name = file.strip_suffix(".schema.json").unwrap();
        // As the last argument of `check`, or the last word of a line of the tables above.
        let is_met = tests
            .iter()
            .any(|text| text.contains(&format!("\"{name}\")")))
            || tests
                .iter()
                .any(|text| text.contains(&format!("\"{name}\",\n    )")));
        assert!(is_met, "no output is compared with {file}");
    }
}

/// The texts of the tests.
fn sources(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.path() {
            path if path.is_dir() => found.extend(sources(&path)),
            path => found.push(fs::read_to_string(path).unwrap()),
        }
    }
    found
}
