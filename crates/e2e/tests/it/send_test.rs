//! `routes test`, which says what would be sent, and `routes send-test`, which sends it.

use std::fs;

use serde_json::{Value, json};

use crate::json;
use crate::pipeline::{Pipeline, command, free_ports, http, signed, until};
use crate::sink::{Sink, status};

const SECRET: &str = "a-secret-of-the-shop";

/// A route that makes headers and a body of its own, with a login and a signature.
fn with_templates(sink: &Sink) -> Pipeline {
    let mut pipeline = Pipeline::prepare("    []\n");
    let folder = pipeline.folder.path();
    fs::write(folder.join("shop.token"), SECRET).unwrap();
    fs::write(folder.join("signing"), "c2VjcmV0LXNlY3JldC1zZWNyZXQ=").unwrap();
    let template = r#"{"order": {{ event.entityRef }}, "state": {{ event.entityStatus }}}"#;
    fs::write(folder.join("order.tpl"), template).unwrap();
    let route = format!(
        "    - name: orders
      match: {{ event: OrderStatusChange }}
      dispatcher: http
      http:
        url: \"http://{}/orders\"
        headers:
          x-order: \"{{{{ event.entityRef }}}}\"
          x-key: {{ file: shop.token }}
        auth: {{ bearer: {{ file: shop.token }} }}
        sign: [{{ file: signing }}]
        template: {{ file: order.tpl, content-type: application/json }}
    - {{ name: log, match: {{}}, dispatcher: log }}
    - {{ name: others, match: {{ event: Other }}, dispatcher: log }}
",
        sink.address
    );
    pipeline.write_settings(&route);
    pipeline.run();
    pipeline
}

/// An event's file beside the settings.
fn event_file(pipeline: &Pipeline, name: &str) -> String {
    let file = pipeline.folder.path().join("order.json");
    fs::write(&file, signed(name, "HD_7").body).unwrap();
    file.to_str().unwrap().to_owned()
}

fn header<'v>(headers: &'v Value, name: &str) -> &'v str {
    let headers = headers.as_array().unwrap();
    let found = headers.iter().find(|header| header["name"] == name);
    found.unwrap_or_else(|| panic!("no {name} in {headers:?}"))["value"]
        .as_str()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_of_routes_says_what_would_be_sent_without_secrets_and_sends_nothing() {
    let sink = Sink::open().await;
    let pipeline = with_templates(&sink);
    let file = event_file(&pipeline, "OrderStatusChange");
    let found = pipeline.json(&["routes", "test", "--event", &file]);
    json::check("routes test", &found, "tested-routes");
    let sends = &found[0]["sends"];
    assert_eq!(
        sends["target"],
        format!("POST http://{}/orders", sink.address)
    );
    let headers = &sends["headers"];
    assert_eq!(header(headers, "x-order"), "HD_7");
    assert_eq!(header(headers, "content-type"), "application/json");
    assert_eq!(header(headers, "fluent-attempt"), "1");
    for secret in ["x-key", "webhook-signature"] {
        assert_eq!(header(headers, secret), "***");
    }
    assert_eq!(header(headers, "authorization"), "Bearer ***");
    let body = sends["body"].as_str().unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["order"], "HD_7");
    assert!(
        found[1]["sends"]["error"]
            .as_str()
            .unwrap()
            .contains("`log`")
    );
    assert_eq!(found[2]["sends"], Value::Null, "the route does not get it");

    let said = pipeline
        .command(&["routes", "test", "--event", &file])
        .stdout;
    let said = String::from_utf8(said).unwrap();
    for part in [
        "orders would send: POST http://",
        "x-order: HD_7",
        "\"order\": \"HD_7\"",
    ] {
        assert!(said.contains(part), "expected {part:?} in {said}");
    }
    assert!(!said.contains(SECRET) && !found.to_string().contains(SECRET));
    assert!(sink.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_event_goes_to_one_destination_and_says_that_it_is_one() {
    let sink = Sink::answering(|_, _| {
        let mut answer = status(201);
        *answer.body_mut() = "taken".into();
        answer
    })
    .await;
    let pipeline = with_templates(&sink);
    let made_up = pipeline.json(&["routes", "send-test", "orders"]);
    assert_eq!(made_up["outcome"], "done", "{made_up}");
    assert_eq!(made_up["status"], 201);
    assert_eq!(
        (&made_up["answer"], &made_up["answerBytes"]),
        (&json!("taken"), &json!(5))
    );
    assert_eq!(made_up["mismatches"], json!([]));
    let request = sink.requests().pop().unwrap();
    assert_eq!(request.header("fluent-origin"), "test");
    assert_eq!(request.header("idempotency-key"), made_up["eventId"]);
    assert_eq!(request.header("authorization"), format!("Bearer {SECRET}"));

    // A real one of the same body is another event, for the destination too.
    let file = event_file(&pipeline, "OrderStatusChange");
    let given = pipeline.json(&["routes", "send-test", "orders", "--event", &file]);
    let body = fs::read(&file).unwrap();
    let id = pipeline.accept(&crate::SANDBOX.sign(body).unwrap()).await;
    until("the real one is delivered", || sink.len() == 3).await;
    let real = sink.requests().pop().unwrap();
    assert_eq!(
        (real.header("fluent-origin"), real.header("idempotency-key")),
        ("webhook", &*id)
    );
    assert_ne!(given["eventId"], json!(id));

    let file = event_file(&pipeline, "Other");
    let output = pipeline.command(&["routes", "send-test", "orders", "--event", &file]);
    let said = String::from_utf8(output.stdout).unwrap();
    for part in [
        "done, status 201, in ",
        "answered 5 bytes",
        "would not take such an event",
    ] {
        assert!(said.contains(part), "expected {part:?} in {said}");
    }
}

/// A running server sends by its own settings, whichever the command is given.
#[tokio::test(flavor = "multi_thread")]
async fn a_test_event_says_who_sends_it_and_where_and_that_the_settings_given_differ() {
    let sink = Sink::open().await;
    let with = |path: &str| {
        format!(
            "    - {{ name: orders, match: {{}}, dispatcher: http, http: {{ url: \"http://{}/{path}?key=s3cret-value\" }} }}\n",
            sink.address
        )
    };
    let (mut pipeline, grpc) = Pipeline::prepare_with_grpc(&with("old"));
    pipeline.run();
    let own = pipeline.command(&["routes", "send-test", "orders"]);
    let own = String::from_utf8(own.stdout).unwrap();
    let target = format!("to POST http://{}/old?key=***", sink.address);
    assert!(own.contains(&target) && !own.contains("s3cret"), "{own}");
    assert!(own.contains(&format!("at http://{grpc}")), "{own}");
    assert!(!own.contains("have other"), "{own}");

    let settings = fs::read_to_string(pipeline.config()).unwrap();
    let other = pipeline.folder.path().join("other.yml");
    fs::write(&other, settings.replace("/old?", "/new?")).unwrap();
    let said = command(&other, &["routes", "send-test", "orders"]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains(&target), "{said}");
    assert!(
        said.contains("other.yml have other `http` for route orders"),
        "{said}"
    );
    assert!(sink.requests().iter().all(|it| it.path.starts_with("/old")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_event_is_counted_nowhere_and_is_in_the_audit_log() {
    let sink = Sink::answering(|_, _| status(503)).await;
    let [metrics] = free_ports();
    let route = sink.route("orders", "match: {}, breaker: { failures: 2, samples: 2 }");
    let (mut pipeline, grpc) = Pipeline::prepare_with_grpc(&route);
    pipeline.more = format!("  operator: {{ grpc: \"{grpc}\", http: \"{metrics}\" }}\n");
    pipeline.write_settings(&route);
    pipeline.run();
    let server = format!("http://{grpc}");
    for _ in 0..3 {
        let output = pipeline.command(&["routes", "send-test", "orders", "--server", &server]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("transient, status 503, in "), "{said}");
    }
    assert_eq!(sink.len(), 3);
    assert_eq!(pipeline.json(&["deliveries"]), json!([]));
    let audit = pipeline.json(&["audit"]).to_string();
    assert!(audit.contains("SendTestEvent"), "{audit}");
    let request = "GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
    // Whatever counts an attempt counts this one: so those before it were not.
    pipeline.accept(&signed("E", "REAL")).await;
    until("the real one is counted, alone", || {
        let text = http(metrics, request);
        let attempts = text
            .lines()
            .find(|line| line.starts_with("fluent_attempts_total{"));
        attempts.is_some_and(|line| line.ends_with(" 1"))
    })
    .await;
    assert_eq!(sink.len(), 4, "no breaker held it back");
}

#[test]
fn an_unknown_route_is_refused_with_the_nearest() {
    let mut pipeline = Pipeline::prepare("    - { name: orders, match: {}, dispatcher: log }\n");
    pipeline.run();
    let output = pipeline.command(&["routes", "send-test", "order"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("did you mean `orders`"), "{said}");
    let no_event = pipeline.folder.path().join("no.json");
    fs::write(&no_event, "[]").unwrap();
    let file = no_event.to_str().unwrap();
    let output = pipeline.command(&["routes", "send-test", "orders", "--event", file]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("this is not an event"), "{said}");
}
