//! From a signed webhook to its endpoint.

use serde_json::json;
use simulator::{Events, Retry, Shape};

use crate::pipeline::{Pipeline, SANDBOX, signed, until};
use crate::sink::{HANGS, Sink, status};

const FAST: &str = "match: {}, retry: { initial: 50ms, max-delay: 200ms, max-elapsed: 1h }";

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_webhook_reaches_its_destination_whole() {
    let sink = Sink::open().await;
    let pipeline = Pipeline::start(&sink.route("all", FAST));
    for shape in [Shape::Full, Shape::List, Shape::Thin] {
        let mut events = Events::new("ACME", 34, 5);
        let event = events.of("fc.connect.order.webhook.status-update", shape);
        let sent = SANDBOX.sign(event.body).unwrap();
        let id = pipeline.accept(&sent).await;
        until("it arrived", || sink.counts().contains_key(&id)).await;

        let request = sink
            .requests()
            .into_iter()
            .find(|request| request.header("ce-id") == id)
            .unwrap();
        assert_eq!(request.body, sent.body, "the signed bytes, unchanged");
        assert_eq!(request.path, "/all");
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-type", "fc.connect.order.webhook.status-update"),
            ("ce-source", "/fluent/sandbox/ACME/34"),
            ("ce-subject", &format!("ORDER/{}", event.entity_ref)),
            ("content-type", "application/json"),
            ("idempotency-key", &id),
            ("fluent-attempt", "1"),
        ] {
            assert_eq!(request.header(name), value, "{name}");
        }
        assert!(
            request.headers.get("fluent-signature").is_none(),
            "whoever holds it could replay it"
        );
        assert!(request.headers.get("flex.signature").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_from_the_answer_to_the_endpoint() {
    let sink = Sink::answering(|_, before| status(if before < 1 { 503 } else { 200 })).await;
    let pipeline = Pipeline::start(&sink.route("all", FAST));
    let answer = pipeline
        .sender(Retry::Never)
        .send(&signed("E", "T_1"))
        .await
        .answer
        .unwrap();
    until("it was tried twice", || sink.len() == 2).await;
    let trace = answer.body["traceId"].as_str().unwrap();
    let parents: Vec<String> = sink
        .requests()
        .iter()
        .map(|r| r.header("traceparent").to_owned())
        .collect();
    assert!(
        parents.iter().all(|parent| parent.contains(trace)),
        "{trace}: {parents:?}"
    );
    assert_ne!(parents[0], parents[1], "each attempt is a span of its own");
    until("the log has it", || pipeline.log().contains(trace)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_tried_again_and_final_ones_are_kept() {
    let sink = Sink::answering(|request, before| match request.header("ce-subject") {
        "ORDER/TWICE" if before < 2 => status(503),
        "ORDER/NEVER" => status(422),
        "ORDER/LOGIN" if before < 1 => status(401),
        "ORDER/MOVED" if before < 1 => status(302),
        _ => status(204),
    })
    .await;
    let pipeline = Pipeline::start(&sink.route("all", FAST));
    for (reference, arrivals) in [
        ("TWICE", 3),
        ("NEVER", 1),
        ("LOGIN", 2),
        ("MOVED", 2),
        ("WELL", 1),
    ] {
        let id = pipeline
            .accept(&signed("OrderStatusChange", reference))
            .await;
        until(reference, || sink.counts().get(&id) == Some(&arrivals)).await;
    }
    until("one is dead", || {
        pipeline
            .json(&["dead-letters", "list"])
            .as_array()
            .unwrap()
            .len()
            == 1
    })
    .await;
    let letter = &pipeline.json(&["dead-letters", "list"])[0];
    assert_eq!(
        (&letter["reason"], &letter["entity"]),
        (&json!("permanent"), &json!("ORDER/NEVER"))
    );
    let attempts: Vec<_> = sink
        .requests()
        .iter()
        .filter(|r| r.header("ce-subject") == "ORDER/TWICE")
        .map(|r| r.header("fluent-attempt").to_owned())
        .collect();
    assert_eq!(attempts, ["1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_get_what_they_match_and_the_rest_is_kept() {
    let sink = Sink::open().await;
    let routes = sink.route("orders", "match: { event: [A, B] }")
        + &sink.route(
            "status",
            "match: { entity-type: ORDER, environment: sandbox, retailer: 34, event: B }",
        );
    let pipeline = Pipeline::start(&routes);
    for name in ["A", "B", "C"] {
        pipeline.accept(&signed(name, name)).await;
    }
    until("three arrived", || sink.len() == 3).await;
    let mut seen: Vec<_> = sink
        .requests()
        .iter()
        .map(|r| format!("{} {}", r.path, r.header("ce-type")))
        .collect();
    seen.sort();
    assert_eq!(seen, ["/orders A", "/orders B", "/status B"]);
    until("one is unrouted", || {
        pipeline
            .json(&["unrouted", "list"])
            .as_array()
            .unwrap()
            .len()
            == 1
    })
    .await;
    assert_eq!(pipeline.json(&["unrouted", "list"])[0]["event"], "C");
    assert_eq!(
        pipeline.json(&["dead-letters", "list"]),
        json!([]),
        "unrouted is a list of its own"
    );

    let number = pipeline.json(&["unrouted", "list"])[0]["id"].to_string();
    assert!(
        !pipeline
            .command(&["unrouted", "redrive", &number])
            .status
            .success(),
        "to which route?"
    );
    assert!(
        pipeline
            .command(&["unrouted", "redrive", &number, "--to", "orders"])
            .status
            .success()
    );
    until("it arrived too", || sink.len() == 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_route_delays_no_other() {
    let good = Sink::open().await;
    let hangs = Sink::answering(|_, _| status(HANGS)).await;
    let routes =
        good.route("good", "match: {}") + &hangs.route("hangs", "match: {}, concurrency: 2");
    let mut pipeline = Pipeline::start(&routes);
    for number in 0..50 {
        pipeline.accept(&signed("E", &format!("H_{number}"))).await;
    }
    until("the good one has all", || good.len() == 50).await;
    until("the other has what it has places for", || hangs.len() >= 2).await;
    assert_eq!(hangs.len(), 2, "no more than its places");
    // What hangs is given up at the end of patience: the service stops.
    pipeline.signal(rustix::process::Signal::TERM);
    until("it is stopping", || !pipeline.is_ready()).await;
    pipeline.signal(rustix::process::Signal::TERM);
    assert_eq!(pipeline.wait(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_and_a_hang_are_failures_like_others() {
    let routes = "    - { name: odd, match: {}, dispatcher: misbehaving, retry: { initial: 50ms, max-delay: 100ms, max-elapsed: 1h, attempts: 3 } }\n";
    let pipeline = Pipeline::start(routes);
    for reference in ["PANIC_1", "HANG_1", "FAIL_1", "GOOD_1"] {
        pipeline.accept(&signed("E", reference)).await;
    }
    until("three are dead", || {
        pipeline
            .json(&["dead-letters", "list"])
            .as_array()
            .unwrap()
            .len()
            == 3
    })
    .await;
    let letters = pipeline.json(&["dead-letters", "list"]);
    for letter in letters.as_array().unwrap() {
        assert_eq!(
            (&letter["reason"], &letter["attempts"]),
            (&json!("exhausted"), &json!(3)),
            "{letter}"
        );
    }
    let story = pipeline.json(&["events", "show", "PANIC_1"]);
    let outcomes: Vec<_> = story[0]["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| &step["outcome"])
        .collect();
    assert_eq!(outcomes, ["panicked", "panicked", "panicked"]);
    let log = pipeline.log();
    assert!(
        log.contains("\"message\":\"panicked\"") && !log.contains("told to by"),
        "where, and not what: {log}"
    );
    let good = pipeline.json(&["events", "show", "GOOD_1"]);
    assert_eq!(good[0]["outcomes"][0]["state"], "done");
}
