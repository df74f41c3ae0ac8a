//! What goes where, by `match` and `when`.

use std::fs;

use e2e::deployment::{Deployment, Plan};
use serde_json::{Value, json};
use simulator::SignedBody;

use crate::pipeline::{Pipeline, SANDBOX, until};
use crate::sink::Sink;

const STORE: &str = r#"when: 'has(event.attributes.store) && event.attributes.store != "none"'"#;

fn body(reference: &str, rest: &str) -> String {
    format!(
        r#"{{"id":"{reference}","name":"E","accountId":"ACME","retailerId":"34","entityType":"ORDER","entityRef":"{reference}"{rest}}}"#
    )
}

fn signed(reference: &str, rest: &str) -> SignedBody {
    SANDBOX.sign(body(reference, rest)).unwrap()
}

fn subjects(sink: &Sink, route: &str) -> Vec<String> {
    let of_route = |request: &&crate::sink::Request| request.path == format!("/{route}");
    let mut found: Vec<_> = sink
        .requests()
        .iter()
        .filter(of_route)
        .map(|request| request.header("ce-subject").to_owned())
        .collect();
    found.sort_unstable();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_decides_and_one_without_an_answer_is_a_dead_letter() {
    let sink = Sink::open().await;
    let routes = [
        sink.route("stores", &format!("match: {{ event: E, {STORE} }}")),
        sink.route(
            "large",
            r#"match: { when: "event.attributes.total > 100" }"#,
        ),
    ];
    let pipeline = Pipeline::start(&routes.concat());
    for (reference, rest) in [
        ("BOTH", r#","attributes":{"store":"S1","total":101}"#),
        (
            "LISTED",
            r#","attributes":[{"name":"store","value":"S2"},{"name":"total","value":7}]"#,
        ),
        ("NEITHER", r#","attributes":{"store":"none","total":1}"#),
        ("NOTHING", ""),
        ("ODD", r#","attributes":{"total":"canary-7f"}"#),
    ] {
        pipeline.accept(&signed(reference, rest)).await;
    }
    until("what matches arrived", || sink.len() == 3).await;
    assert_eq!(subjects(&sink, "stores"), ["ORDER/BOTH", "ORDER/LISTED"]);
    assert_eq!(subjects(&sink, "large"), ["ORDER/BOTH"]);
    let dead = || pipeline.json(&["dead-letters", "list"]);
    until("what can't be decided is kept", || {
        dead().as_array().unwrap().len() == 2
    })
    .await;
    let dead = dead();
    let mut refs = Vec::new();
    for letter in dead.as_array().unwrap() {
        assert_eq!(
            (&letter["route"], &letter["reason"]),
            (&json!("large"), &json!("undecided"))
        );
        refs.push(letter["entity"].as_str().unwrap_or_default().to_owned());
    }
    refs.sort_unstable();
    assert_eq!(refs, ["ORDER/NOTHING", "ORDER/ODD"], "{dead}");
    let unrouted = pipeline.json(&["unrouted", "list"]);
    assert_eq!(unrouted.as_array().unwrap().len(), 1, "{unrouted}");
    assert!(
        !pipeline.log().contains("canary") && !dead.to_string().contains("canary"),
        "I8"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_asks_a_mended_expression_and_hears_its_no() {
    let sink = Sink::open().await;
    let route = |when: &str| sink.route("probe", &format!(r#"match: {{ when: '{when}' }}"#));
    let mut pipeline = Pipeline::start(&route(r#"event.attributes.test != "true""#));
    let wanted = pipeline
        .accept(&signed("WANTED", r#","attributes":{"store":"S1"}"#))
        .await;
    let other = pipeline.accept(&signed("OTHER", "")).await;
    let dead = || {
        pipeline
            .json(&["dead-letters", "list"])
            .as_array()
            .unwrap()
            .len()
    };
    until("both are undecided", || dead() == 2).await;
    assert_eq!(pipeline.stop(), Some(0));
    let mended = r#"has(event.attributes.store) && !(has(event.attributes.test) && event.attributes.test == "true")"#;
    pipeline.write_settings(&route(mended));
    pipeline.run();
    assert!(
        pipeline
            .command(&["dead-letters", "redrive", "--all", "--yes"])
            .status
            .success()
    );
    let told = |id: &str| pipeline.json(&["events", "show", id])[0]["attempts"].to_string();
    until("both are done", || {
        told(&wanted).contains("done") && told(&other).contains("done")
    })
    .await;
    assert!(
        told(&other).contains("skipped: the route's match says no now"),
        "{}",
        told(&other)
    );
    assert_eq!(subjects(&sink, "probe"), ["ORDER/WANTED"]);
    assert!(
        pipeline
            .json(&["dead-letters", "list"])
            .as_array()
            .unwrap()
            .is_empty()
    );
}

fn findings(found: &Value) -> Vec<(String, Value, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let one = |finding: &Value| {
        (
            text(&finding["route"]),
            finding["matches"].clone(),
            finding["why"][0].as_str().unwrap_or("").to_owned(),
        )
    };
    found.as_array().unwrap().iter().map(one).collect()
}

#[test]
fn a_route_test_says_who_gets_an_event_and_why_others_do_not() {
    let routes = format!(
        "    - {{ name: all, match: {{}}, dispatcher: log }}\n    \
             - {{ name: other, match: {{ event: [A, B] }}, dispatcher: log }}\n    \
             - {{ name: stores, match: {{ {STORE} }}, dispatcher: log }}\n    \
             - {{ name: odd, match: {{ when: event.attributes.x }}, dispatcher: log }}\n"
    );
    let pipeline = Pipeline::prepare(&routes);
    let file = pipeline.folder.path().join("event.json");
    fs::write(&file, body("R", "")).unwrap();
    let test = |args: &[&str]| {
        let args = [&["routes", "test", "--event", file.to_str().unwrap()], args].concat();
        pipeline.command(&args)
    };
    let found: Value = serde_json::from_slice(&test(&["--json"]).stdout).unwrap();
    assert_eq!(
        findings(&found),
        [
            ("all".into(), json!(true), String::new()),
            ("other".into(), json!(false), "event is `E`, expected A or B".into()),
            ("stores".into(), json!(false), "`when` is false".into()),
            (
                "odd".into(),
                Value::Null,
                "the route's `when` gave no answer: the field `event.attributes.x` is missing: ask `has(event.attributes.x)` first"
                    .into()
            ),
        ]
    );
    let table = String::from_utf8(test(&[]).stdout).unwrap();
    assert!(table.contains("dead letter"), "{table}");

    pipeline.write_settings("    - { name: other, match: { event: A }, dispatcher: log }\n");
    let found: Value = serde_json::from_slice(&test(&["--json"]).stdout).unwrap();
    assert_eq!(findings(&found)[1].0, "unrouted");
    fs::write(&file, "{}").unwrap();
    let refused = test(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("kept in quarantine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_against_a_running_system_says_what_changes() {
    let sink = Sink::open().await;
    let routes = [
        sink.route("same", "match: {}"),
        sink.route("changed", "match: { event: E }"),
    ];
    let orphan = "    - { name: gone, match: { event: E }, dispatcher: misbehaving, misbehaving: { millis: 600000 }, concurrency: 1 }\n";
    let pipeline = Pipeline::start(&(routes.concat() + orphan));
    for reference in ["A", "B"] {
        pipeline.accept(&signed(reference, "")).await;
    }
    until("they arrived", || sink.len() == 4).await;
    let changed = [
        sink.route("same", "match: {}"),
        sink.route("changed", &format!("match: {{ event: E, {STORE} }}")),
        sink.route("late", "match: {}"),
        sink.route("early", "match: {}, start: beginning"),
    ];
    pipeline.write_settings(&changed.concat());
    let found = pipeline.json(&["check", "--against"]);
    let found: Vec<_> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| {
            (
                finding["route"].as_str().unwrap(),
                finding["change"].as_str().unwrap(),
                finding["events"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("same", "same", 0),
            ("changed", "rematched", 0),
            ("late", "new", 0),
            ("early", "new", 2),
            ("gone", "orphaned", 1)
        ]
    );
    let table = pipeline.command(&["check", "--against"]);
    assert!(
        String::from_utf8(table.stdout)
            .unwrap()
            .contains("left behind")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_against_a_running_system_names_other_settings_of_a_route() {
    let sink = Sink::open().await;
    let pipeline = Pipeline::start(&sink.route("orders", "match: {}"));
    pipeline.write_settings(&sink.route("orders", "match: {}, concurrency: 3, retry: {}"));
    let found = pipeline.json(&["check", "--against"]);
    assert_eq!(found[0]["change"], "changed", "{found}");
    assert_eq!(found[0]["changedSettings"], json!(["concurrency", "retry"]));
    let table = pipeline.command(&["check", "--against"]).stdout;
    let table = String::from_utf8(table).unwrap();
    assert!(
        table.contains("goes on with another `concurrency`, `retry`"),
        "{table}"
    );
}

/// What `check --against` finds for the route `changed`: what changes, and for how
/// many events.
fn finding(output: &std::process::Output) -> (String, u64) {
    let found: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let finding = found
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["route"] == "changed")
        .unwrap();
    (
        finding["change"].as_str().unwrap().to_owned(),
        finding["events"].as_u64().unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_match_applies_to_is_counted() {
    let sink = Sink::open().await;
    let pipeline = Pipeline::start(&sink.route("changed", "match: { event: E }"));
    assert!(
        pipeline
            .command(&["routes", "pause", "changed"])
            .status
            .success()
    );
    // From then on nothing begins: the time is the promise.
    tokio::time::sleep(queue::PAUSES_WITHIN).await;
    for number in 0..3 {
        pipeline.accept(&signed(&format!("M_{number}"), "")).await;
    }
    assert_eq!(
        finding(&pipeline.command(&["check", "--against", "--json"])),
        ("same".to_owned(), 3)
    );
    pipeline.write_settings(&sink.route("changed", "match: { event: [E, F] }"));
    assert_eq!(
        finding(&pipeline.command(&["check", "--against", "--json"])),
        ("rematched".to_owned(), 3)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_it_is_counted_too() {
    let sink = Sink::open().await;
    let plan = Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        ..Plan::new(sink.route("changed", "match: { event: E }"))
    };
    let deployment = Deployment::start(plan);
    assert!(
        deployment
            .command("operator", &["routes", "pause", "changed"])
            .status
            .success()
    );
    // From then on nothing begins: the time is the promise.
    tokio::time::sleep(queue::PAUSES_WITHIN).await;
    let sender =
        simulator::Sender::new(deployment.gateways[0].url(), simulator::Retry::Never).unwrap();
    for number in 0..3 {
        let sent = sender.send(&signed(&format!("M_{number}"), "")).await;
        assert_eq!(sent.answer.unwrap().status, 200);
    }
    let folder = deployment.folder.path();
    let operator = fs::read_to_string(folder.join("operator.yml")).unwrap();
    for (name, terms, expected) in [("as-it-is", "E", "same"), ("anew", "[E, F]", "rematched")] {
        let settings = operator.replace("event: E }", &format!("event: {terms} }}"));
        fs::write(folder.join(format!("{name}.yml")), settings).unwrap();
        let found = || finding(&deployment.command(name, &["check", "--against", "--json"]));
        until("the spool has forwarded them", || found().1 == 3).await;
        assert_eq!(found().0, expected);
    }
}
