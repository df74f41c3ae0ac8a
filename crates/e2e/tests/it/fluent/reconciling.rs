//! What Fluent logged and never came.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use simulator::SignedBody;
use simulator::api::{Fluent, Sending};

use crate::SANDBOX;
use crate::fluent::{fluent, pipeline_with};
use crate::json;
use crate::pipeline::{Pipeline, until};
use crate::sink::Sink;

pub(super) const BOTH: &str = "match: { event: OrderBooked }, origins: [webhook, reconciled]";

/// What is compared, with this much more.
pub(super) fn reconcile(more: &str) -> String {
    format!("  reconcile: {{ event-names: [OrderBooked], min-age: 15s{more} }}\n")
}

pub(super) fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// A webhook of so long ago, which Fluent says was sent, or was not.
pub(super) fn webhook(fluent: &Fluent, ago: Duration, sending: Sending) -> SignedBody {
    let order = fluent.world().place_order();
    SANDBOX
        .sign(
            fluent
                .world()
                .webhook_of("OrderBooked", &order, ago, sending),
        )
        .unwrap()
}

pub(super) fn field(body: &[u8], name: &str) -> String {
    let body: Value = serde_json::from_slice(body).unwrap();
    body[name].as_str().unwrap().to_owned()
}

/// How often each of Fluent's events arrived, by Fluent's id.
pub(super) fn arrived(sink: &Sink) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for request in sink.requests() {
        *counts.entry(field(&request.body, "id")).or_insert(0) += 1;
    }
    counts
}

fn said(pipeline: &Pipeline, args: &[&str]) -> String {
    let output = pipeline.command(args);
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub(super) const ALL: [&str; 4] = ["reconcile", "--from", "40m", "--unknown"];

#[tokio::test(flavor = "multi_thread")]
async fn ten_minutes_of_outage_are_recovered_and_nothing_comes_twice() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let mut pipeline = pipeline_with(&fluent, &sink.route("r", BOTH), &[], reconcile(""));
    // An event every ten seconds for half an hour; for ten minutes of it nothing was heard.
    let mut lost = Vec::new();
    for number in 0..180_u64 {
        let ago = minutes(35) - Duration::from_secs(10 * number);
        let is_lost = (60..120).contains(&number);
        let sending = match number % 3 {
            _ if !is_lost => Sending::Succeeded,
            _ if number == 63 => Sending::NoSetting,
            0 => Sending::Never,
            _ => Sending::Failed,
        };
        let webhook = webhook(&fluent, ago, sending);
        match is_lost {
            true => lost.push(field(&webhook.body, "id")),
            false => drop(pipeline.accept(&webhook).await),
        }
    }
    until("what came is delivered", || sink.len() == 120).await;

    let found = pipeline.json(&[&ALL[..], &["--dry-run", "--limit", "1000"]].concat());
    json::check("reconcile", &found, "reconciled");
    let missing = found["missing"].as_array().unwrap();
    let ids: Vec<_> = missing
        .iter()
        .map(|one| one["fluentEventId"].as_str().unwrap())
        .collect();
    assert_eq!(ids, lost, "all of them, the oldest first");
    assert_eq!(
        (&missing[0]["sending"], &missing[1]["sending"]),
        (&"none".into(), &"FAILED".into())
    );
    assert_eq!(
        missing[3]["sending"], "no-setting",
        "Fluent sent nothing, and nothing got lost"
    );
    assert_eq!(
        (&missing[0]["state"], &missing[0]["account"]),
        (&"admissible".into(), &"ACME".into())
    );
    assert_eq!(
        (&found["counts"]["logged"], &found["counts"]["received"]),
        (&180.into(), &120.into())
    );
    assert_eq!(sink.len(), 120, "it was only shown");

    let admitted = pipeline.json(&[&ALL[..], &["--yes"]].concat());
    assert_eq!(admitted["counts"]["admitted"], 60, "{admitted}");
    until("everything is delivered", || sink.len() == 180).await;
    // A death before that would give it again.
    settled(&pipeline).await;
    // Killed, and asked again: nothing is missing, and nothing comes again.
    pipeline.kill();
    pipeline.run();
    let again = pipeline.json(&[&ALL[..], &["--yes"]].concat());
    assert_eq!(
        (&again["counts"]["missing"], &again["counts"]["received"]),
        (&0.into(), &180.into())
    );
    settled(&pipeline).await;
    assert!(
        arrived(&sink).values().all(|count| *count == 1),
        "nothing twice"
    );
    assert_eq!(arrived(&sink).len(), 180);
    let origins = sink
        .requests()
        .iter()
        .filter(|one| one.header("fluent-origin") == "reconciled")
        .count();
    assert_eq!(origins, 60, "and they say so");
    let audit = pipeline.json(&["audit"]);
    assert_eq!(
        (&audit[0]["action"], &audit[2]["affected"]),
        (&"Reconcile".into(), &60.into()),
        "{audit}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_of_which_nothing_is_known_is_refused() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let pipeline = pipeline_with(&fluent, &sink.route("r", BOTH), &[], reconcile(""));
    webhook(&fluent, minutes(5), Sending::Failed);
    let said_so = said(&pipeline, &["reconcile", "--from", "30m", "--yes"]);
    assert!(
        said_so.contains("is not known here, and everything would look missing"),
        "{said_so}"
    );
    let at_a_server = said(
        &pipeline,
        &[
            "reconcile",
            "--from",
            "30m",
            "--server",
            "http://127.0.0.1:9",
        ],
    );
    assert!(at_a_server.contains("leave out --server"), "{at_a_server}");
    assert!(sink.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_route_takes_stays_out_and_is_shown() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let big = sink.route(
        "big",
        "match: { event: OrderBooked, retailer: 7 }, origins: [reconciled, webhook]",
    );
    let routes = format!("{big}{}", sink.route("webhooks", "match: {}"));
    let pipeline = pipeline_with(&fluent, &routes, &[], reconcile(""));
    webhook(&fluent, minutes(5), Sending::Succeeded);
    let said_so = said(&pipeline, &[&ALL[..], &["--yes"]].concat());
    for part in [
        "stays out: no route takes it",
        "SUCCESS",
        "1 logged by Fluent, 0 of them came, 1 did not",
        "1 stay out: add a route",
    ] {
        assert!(said_so.contains(part), "{part} in {said_so}");
    }
    assert!(sink.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_recovers_by_itself_what_does_not_come() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let mut pipeline = pipeline_with(
        &fluent,
        &sink.route("r", BOTH),
        &[],
        reconcile(", interval: 1s, lookback: 1h"),
    );
    let before = webhook(&fluent, minutes(5), Sending::Failed);
    let lost = webhook(&fluent, Duration::ZERO, Sending::Failed);
    let sent = webhook(&fluent, Duration::ZERO, Sending::Succeeded);
    pipeline.accept(&sent).await;
    until("what was lost is delivered", || sink.len() == 2).await;
    let expected: HashMap<_, _> = [&lost, &sent].map(|one| (field(&one.body, "id"), 1)).into();
    assert_eq!(
        arrived(&sink),
        expected,
        "and not what was before there was a queue: {:?}",
        field(&before.body, "id")
    );
    // It goes on where it was, in the next process too.
    pipeline.stop();
    let searched = fluent.calls().searches;
    pipeline.run();
    until("it compares again", || {
        fluent.calls().searches > searched + 1
    })
    .await;
    assert_eq!(sink.len(), 2);
    assert!(
        !pipeline.log().contains("never compared"),
        "{}",
        pipeline.log()
    );
}

#[test]
fn settings_that_nobody_could_profit_from_are_refused() {
    let check = |routes: &str, reconcile: &str, expected: &str| {
        let mut pipeline = Pipeline::prepare("    []\n");
        pipeline.api =
            ", api: { username: u, password: { file: s }, client-id: c, client-secret: { file: s } }"
                .to_owned();
        pipeline.more = format!("  reconcile: {reconcile}\n");
        std::fs::write(pipeline.folder.path().join("s"), "s").unwrap();
        pipeline.write_settings(routes);
        let said = said(&pipeline, &["check"]);
        assert!(said.contains(expected), "{expected} in {said}");
    };
    let route = |more: &str| {
        format!(
            "    - {{ name: r, match: {{ event: E{more} }}, origins: [webhook, reconciled], dispatcher: log }}\n"
        )
    };
    check(
        &route(""),
        "{ event-names: [E] }",
        "compared with what came, every 15m: E",
    );
    check(
        &route(""),
        "{ event-names: [F] }",
        "no route takes it: expected one with `origins: [webhook, reconciled]`",
    );
    check(
        &route(""),
        "{ event-names: [E], accounts: [ACNE] }",
        "did you mean `ACME`?",
    );
    check(
        &route(""),
        "{ event-names: [E], min-age: 1s }",
        "Fluent itself tries for 14 s",
    );
    check(
        &route(", entity-status: BOOKED"),
        "{ event-names: [E] }",
        "warning: route r matches on entity-status, which Fluent's log does not have",
    );
    let asks = route(", when: \"event.entityStatus == 'X'\"");
    check(
        &asks,
        "{ event-names: [E] }",
        "`when` of route r asks for entityStatus, which Fluent's log does not have",
    );
    check(
        &route(""),
        "{ event-names: [E], min-age: 26h }",
        "compared with what came",
    );
    check(&route(""), "{ event-names: [E, E] }", "it is listed twice");
    check(
        &route(""),
        "{ event-names: [E], accounts: [] }",
        "or nothing for every account with an `api`",
    );
    let nobody = "    - { name: r, match: {}, origins: [], dispatcher: log }\n";
    check(
        nobody,
        "{ event-names: [E] }",
        "expected webhook, reconciled, or both",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_is_gone_on_with() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let pipeline = pipeline_with(&fluent, &sink.route("r", BOTH), &[], reconcile(""));
    (0..300).for_each(|_| drop(webhook(&fluent, minutes(5), Sending::Failed)));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pipeline"));
    command
        .args([&ALL[..], &["--yes", "--config"]].concat())
        .arg(pipeline.config());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it has begun to admit", || !sink.is_empty()).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let rest = pipeline.json(&[&ALL[..], &["--yes"]].concat());
    assert_eq!(rest["counts"]["logged"], 300);
    assert!(
        rest["counts"]["received"].as_u64() > Some(0),
        "it goes on from there: {}",
        rest["counts"]
    );
    until("all are delivered", || arrived(&sink).len() == 300).await;
    settled(&pipeline).await;
    assert!(
        arrived(&sink).values().all(|count| *count == 1),
        "and none twice"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fluent_has_not_done_or_will_not_do_is_not_missing() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let waits = sink.route(
        "waits",
        "match: { entity-status: BOOKED }, origins: [reconciled]",
    );
    let routes = format!("{}{waits}", sink.route("r", BOTH));
    let pipeline = pipeline_with(&fluent, &routes, &[], reconcile(""));
    assert!(
        pipeline
            .log()
            .contains("route waits matches on entity-status"),
        "{}",
        pipeline.log()
    );
    for (status, sending) in [
        ("SCHEDULED", Sending::Never),
        ("NO_MATCH", Sending::Never),
        ("PENDING", Sending::Never),
        ("FAILED", Sending::Never),
        ("FAILED", Sending::Failed),
        ("COMPLETE", Sending::Failed),
    ] {
        let id = field(&webhook(&fluent, minutes(5), sending).body, "id");
        fluent.world().set_in_log(&id, "eventStatus", status.into());
    }
    let said = pipeline.json(&[&ALL[..], &["--yes"]].concat());
    let mut states: Vec<_> = said["missing"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["state"].as_str().unwrap())
        .collect();
    states.sort_unstable();
    assert_eq!(
        states,
        ["admitted", "admitted", "pending", "workflow-failed"],
        "{said}"
    );
    assert_eq!(said["counts"]["keptOut"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_event_holds_is_delivered_and_told_to_nobody_else() {
    let fluent = fluent().await;
    let sink = Sink::open().await;
    let pipeline = pipeline_with(
        &fluent,
        &sink.route("r", BOTH),
        &[],
        reconcile(", interval: 1s"),
    );
    let id = field(&webhook(&fluent, minutes(5), Sending::Failed).body, "id");
    let secret = serde_json::json!([{ "name": "note", "type": "STRING", "value": "CANARY-7181" }]);
    fluent.world().set_in_log(&id, "attributes", secret);
    let output = said(&pipeline, &[&ALL[..], &["--yes", "--json"]].concat());
    until("it is delivered", || !sink.is_empty()).await;
    assert!(String::from_utf8_lossy(&sink.requests()[0].body).contains("CANARY-7181"));
    let audit = std::fs::read_to_string(pipeline.folder.path().join("data/audit.jsonl")).unwrap();
    for told in [
        output,
        pipeline.log(),
        audit,
        pipeline.json(&["events", "show", "CC_1001"]).to_string(),
    ] {
        assert!(!told.is_empty() && !told.contains("CANARY"), "{told}");
    }
}

/// Nothing is under way: what is not there by now will not come.
pub(super) async fn settled(pipeline: &Pipeline) {
    let is_settled = || {
        let route = &pipeline.json(&["routes", "list"])[0];
        ["inFlight", "waiting", "behind"]
            .iter()
            .all(|count| route[*count] == 0)
    };
    until("nothing is under way", is_settled).await;
}
