//! The commands, beside a running service.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::pipeline::{PRODUCTION, Pipeline, SANDBOX, signed, until};
use crate::sink::{Sink, status};

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_found_shown_and_sent_again() {
    let sink = Sink::answering(|_, before| status(if before < 1 { 422 } else { 200 })).await;
    let pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    let id = pipeline.accept(&signed("E", "HD_1")).await;
    pipeline.accept(&signed("E", "HD_2")).await;
    until("both are dead", || {
        pipeline
            .json(&["dead-letters", "list"])
            .as_array()
            .unwrap()
            .len()
            == 2
    })
    .await;
    let found = pipeline.json(&["dead-letters", "list", "--ref", "HD_1"]);
    assert_eq!(
        (found.as_array().unwrap().len(), &found[0]["eventId"]),
        (1, &json!(id))
    );

    let number = found[0]["id"].to_string();
    let shown = pipeline.json(&["dead-letters", "show", &number, "--body"]);
    assert!(shown["body"].as_str().unwrap().contains("HD_1"));
    assert!(
        pipeline.json(&["dead-letters", "show", &number])["body"].is_null(),
        "only when asked for"
    );
    assert!(
        pipeline
            .command(&["dead-letters", "redrive", &number])
            .status
            .success()
    );
    until("it arrived again", || sink.counts()[&id] == 2).await;
    until("it is done", || {
        pipeline.json(&["events", "show", "HD_1"])[0]["outcomes"][0]["state"] == "done"
    })
    .await;

    let unasked = pipeline.command(&["dead-letters", "redrive", "--all"]);
    assert!(!unasked.status.success(), "nobody said yes");
    assert!(
        pipeline
            .command(&["dead-letters", "redrive", "--all", "--yes"])
            .status
            .success()
    );
    until("none is left", || {
        pipeline.json(&["dead-letters", "list"]) == json!([])
    })
    .await;
    let missing = pipeline.command(&["dead-letters", "redrive", "999"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("there is no dead letter 999"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_body_is_admitted_once_it_can_be() {
    let sink = Sink::open().await;
    let pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    let odd = SANDBOX
        .sign(*br#"{"accountId":"ACME","name":"E"}"#)
        .unwrap();
    drop(pipeline.sender(simulator::Retry::Never).send(&odd).await);
    let kept = pipeline.json(&["quarantine", "list"]);
    assert_eq!(kept[0]["reason"], "`id` is missing or empty");
    let number = kept[0]["id"].to_string();
    let still = pipeline.command(&["quarantine", "redrive", &number]);
    assert_eq!(still.status.code(), Some(1));
    let said = String::from_utf8_lossy(&still.stderr).into_owned();
    assert!(
        said.contains("still refused") && said.contains("`id` is missing"),
        "{said}"
    );
}

/// What a later version can read, an operator admits: here a body that was
/// quarantined although it is an event.
#[tokio::test(flavor = "multi_thread")]
async fn a_redriven_body_is_verified_again_and_delivered() {
    let sink = Sink::open().await;
    let mut pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    let good = signed("E", "Q_1");
    let kept = |body: Vec<u8>| queue::Quarantined {
        id: 0,
        body: body.into(),
        proof: event_model::Proof::Signed(event_model::Algorithm::Sha512),
        key: "sydney_sandbox".parse().unwrap(),
        signature: good.sha512.clone(),
        received_at: event_model::Timestamp::UNIX_EPOCH,
        reason: "a test says so".to_owned(),
    };
    let beside = queue_embedded::SqliteStores::open(&pipeline.data.join("queue.db"), None).unwrap();
    let quarantine = queue::Stores::quarantine(&beside);
    quarantine.store(kept(good.body.clone())).await.unwrap();
    quarantine.store(kept(b"{}".to_vec())).await.unwrap();
    drop(beside);
    let listed = pipeline.json(&["quarantine", "list"]);
    let number = |index: usize| listed[index]["id"].to_string();
    let forged = pipeline.command(&["quarantine", "redrive", &number(1)]);
    assert!(
        String::from_utf8_lossy(&forged.stderr).contains("matches no key"),
        "{forged:?}"
    );
    assert_eq!(
        pipeline.json(&["quarantine", "redrive", &number(0)])["succeeded"],
        1
    );
    until("it arrived", || sink.len() == 1).await;
    assert_eq!(
        pipeline.json(&["quarantine", "discard", &number(1), "--yes"])["succeeded"],
        1
    );
    assert_eq!(pipeline.json(&["quarantine", "list"]), json!([]));
    // Positions go on after it.
    pipeline.accept(&signed("E", "Q_2")).await;
    until("that arrived too", || sink.len() == 2).await;
    assert_eq!(pipeline.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_left_the_settings_can_be_forgotten() {
    let sink = Sink::open().await;
    let mut pipeline =
        Pipeline::start(&(sink.route("old", "match: {}") + &sink.route("new", "match: {}")));
    pipeline.accept(&signed("E", "F_1")).await;
    until("both have it", || sink.len() == 2).await;
    assert!(
        !pipeline
            .command(&["routes", "forget", "old", "--yes"])
            .status
            .success(),
        "it is in the settings"
    );
    assert!(
        !pipeline
            .command(&["routes", "forget", "unrouted", "--yes"])
            .status
            .success(),
        "it is ours"
    );
    pipeline.write_settings(&sink.route("new", "match: {}"));
    // Forgotten while still in use: the others go on.
    assert_eq!(
        pipeline.json(&["routes", "forget", "old", "--yes"])["succeeded"],
        1
    );
    pipeline.accept(&signed("E", "F_2")).await;
    let new = || {
        sink.requests()
            .iter()
            .filter(|request| request.path == "/new")
            .count()
    };
    until("the other route has it", || new() == 2).await;
    assert_eq!(pipeline.stop(), Some(0));
    pipeline.run();
    pipeline.accept(&signed("E", "F_3")).await;
    until("it goes on", || new() == 3).await;
    assert!(
        !pipeline
            .json(&["routes", "list"])
            .to_string()
            .contains("old")
    );
}

#[track_caller]
fn verify(pipeline: &Pipeline, body: &[u8], header: &str, code: i32, says: &[&str]) {
    let file = pipeline.folder.path().join("body.json");
    fs::write(&file, body).unwrap();
    let output = pipeline.command(&[
        "verify",
        "--body",
        file.to_str().unwrap(),
        "--header",
        header,
    ]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    for part in says {
        assert!(said.contains(part), "expected {part:?} in {said:?}");
    }
}

#[test]
fn verify_says_which_key_or_why_none() {
    let pipeline = Pipeline::prepare("    []\n");
    let signed = signed("OrderStatusChange", "HD_1");
    let sha = format!("fluent-signature: {}", signed.sha512);
    verify(
        &pipeline,
        &signed.body,
        &sha,
        0,
        &[
            "genuine: signed with sha512 by the key sydney_sandbox",
            "/fluent/sandbox/ACME/34",
        ],
    );
    verify(
        &pipeline,
        &[&signed.body[..], b"\n"].concat(),
        &sha,
        1,
        &["NOT genuine", "sydney_sandbox", "line end"],
    );
    let pretty = serde_json::to_vec_pretty(
        &serde_json::from_slice::<serde_json::Value>(&signed.body).unwrap(),
    )
    .unwrap();
    verify(
        &pipeline,
        &pretty,
        &sha,
        1,
        &["over other bytes", "parsed the JSON"],
    );
    verify(
        &pipeline,
        &signed.body,
        &format!("fluent-signature: {}", signed.md5),
        1,
        &["a good md5 signature", "flex.signature"],
    );
    let stranger = simulator::KeyPair::generate(1024)
        .unwrap()
        .sign(signed.body.clone())
        .unwrap();
    verify(
        &pipeline,
        &signed.body,
        &format!("fluent-signature: {}", stranger.sha512),
        1,
        &["none of the keys listed", "another environment's"],
    );
    let url_safe = format!(
        "fluent-signature: {}",
        signed.sha512.replace('+', "-").replace('/', "_")
    );
    if url_safe != sha {
        verify(&pipeline, &signed.body, &url_safe, 1, &["URL-safe"]);
    }
    verify(
        &pipeline,
        &signed.body,
        "x-signature: abc",
        1,
        &["no signature header", "nginx"],
    );
    let other = simulator::Events::new("STRANGER", 1, 1).any();
    let foreign = PRODUCTION.sign(other.body.clone()).unwrap();
    verify(
        &pipeline,
        &other.body,
        &format!("fluent-signature: {}", foreign.sha512),
        1,
        &["genuine, but it would be refused", "not listed"],
    );
}

#[test]
fn check_says_in_words_what_would_run() {
    let pipeline = Pipeline::prepare(
        "    - { name: orders, match: { event: [A, B], retailer: 34 }, dispatcher: log }\n",
    );
    let output = pipeline.command(&["check"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for part in [
        "is valid",
        "ACME (sydney_sandbox), ACME (sydney_production)",
        "event A|B, retailer 34",
        "RSA 1024 bits",
        "up to 103.6 events a second, for the 27 hours in which Fluent sends again up to 276.2",
    ] {
        assert!(said.contains(part), "expected {part:?} in {said}");
    }
    assert!(!said.contains("warning"), "{said}");
    let settings = fs::read_to_string(pipeline.config()).unwrap();
    let small = settings.replace("queue.db\" }", "queue.db\", retention: { bytes: 16MiB } }");
    assert_ne!(small, settings);
    fs::write(pipeline.config(), small).unwrap();
    let said = String::from_utf8_lossy(&pipeline.command(&["check"]).stdout).into_owned();
    assert!(
        said.contains("warning: fluent-connect.queue.retention.bytes: beyond 0.4 events"),
        "{said}"
    );
}

/// What can't be written is an error, and a reader that goes away is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_behind_the_output_is_an_error_and_a_closed_pipe_is_not() {
    let sink = Sink::open().await;
    let pipeline = Pipeline::start(&sink.route("all", "match: {}"));
    pipeline.accept(&signed("E", "HD_1")).await;
    let commands: [&[&str]; 6] = [
        &["dead-letters", "list"],
        &["dead-letters", "list", "--json"],
        &["quarantine", "list"],
        &["events", "show", "HD_1", "--json"],
        &["routes", "list"],
        &["check"],
    ];
    for arguments in commands {
        let run = |out: Stdio| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
            command
                .args(arguments)
                .arg("--config")
                .arg(pipeline.config())
                .stdin(Stdio::null());
            command
                .stdout(out)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
                .wait_with_output()
                .unwrap()
        };
        let full = run(fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap()
            .into());
        let said = String::from_utf8_lossy(&full.stderr).into_owned();
        assert_eq!(full.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(
            said.contains("No space left on device"),
            "{arguments:?}: {said}"
        );
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = run(writer.into());
        assert_eq!(
            (closed.status.code(), closed.stderr.len()),
            (Some(0), 0),
            "{arguments:?}"
        );
    }
}
