//! The HTTP dispatcher, as its settings say.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::http::Response;
use serde_json::{Value, json};

use crate::pipeline::{Pipeline, signed, until};
use crate::sink::{Request, Sink, status};

/// A route with more in its `http` table.
fn route(sink: &Sink, rest: &str) -> String {
    let url = format!("http://{}/all", sink.address);
    format!(
        "    - {{ name: all, match: {{}}, dispatcher: http, http: {{ url: \"{url}\", {rest} }}, retry: {{ initial: 50ms, max-delay: 100ms, max-elapsed: 1h }} }}\n"
    )
}

fn with_files(routes: &str, files: &[(&str, &str)]) -> Pipeline {
    let mut pipeline = Pipeline::prepare(routes);
    for (name, text) in files {
        fs::write(pipeline.folder.path().join(name), text).unwrap();
    }
    pipeline.run();
    pipeline
}

async fn one(pipeline: &Pipeline, sink: &Sink, reference: &str) -> Request {
    let id = pipeline.accept(&signed("E", reference)).await;
    until("it arrived", || !sink.is_empty()).await;
    let request = sink.requests().into_iter().next_back().unwrap();
    assert_eq!(request.header("idempotency-key"), id);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_come_from_templates_and_secret_files() {
    let sink = Sink::open().await;
    let rest = "method: PUT, headers: { x-order: \"{{ event.entityRef }}/{{ event.environment }}\", x-key: { file: key } }, auth: { basic: { user: u, password: { file: key } } }";
    let pipeline = with_files(&route(&sink, rest), &[("key", "s3cret\n")]);
    let request = one(&pipeline, &sink, "HD_1").await;
    for (name, value) in [
        ("x-order", "HD_1/sandbox"),
        ("x-key", "s3cret"),
        ("authorization", "Basic dTpzM2NyZXQ="),
    ] {
        assert_eq!(request.header(name), value);
    }
    assert!(!pipeline.log().contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_can_end_a_headers_line() {
    let sink = Sink::open().await;
    let rest = "headers: { x-note: \"{{ event.attributes.note }}\" }";
    let pipeline = with_files(&route(&sink, rest), &[]);
    for (reference, note) in [("BAD", r"a\r\nx-evil: 1"), ("GOOD", "a")] {
        let body = format!(
            r#"{{"id":"1","name":"E","accountId":"ACME","retailerId":"34","entityRef":"{reference}","attributes":{{"note":"{note}"}}}}"#
        );
        pipeline
            .accept(&crate::pipeline::SANDBOX.sign(body).unwrap())
            .await;
    }
    until("the bad one is a dead letter", || {
        pipeline.json(&["dead-letters", "list"]) != json!([])
    })
    .await;
    until("the good one arrived", || sink.len() == 1).await;
    let letter = pipeline.json(&["dead-letters", "list"])[0].clone();
    assert_eq!(letter["reason"], "permanent");
    assert!(sink.requests()[0].headers.get("x-evil").is_none());
    assert!(
        !letter.to_string().contains("evil") && !pipeline.log().contains("evil"),
        "I8"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_what_the_settings_say() {
    for (rest, content_type, check) in [
        (
            "format: bare",
            "application/json",
            (|request: &Request| request.headers.get("ce-id").is_none()) as fn(&Request) -> bool,
        ),
        (
            "format: structured",
            "application/cloudevents+json",
            |request| {
                let event: Value = serde_json::from_slice(&request.body).unwrap();
                event["id"] == request.header("idempotency-key")
                    && event["specversion"] == "1.0"
                    && event["data"]["entityRef"] == "HD_2"
            },
        ),
        (
            "template: { file: body.json }",
            "application/json",
            |request| {
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                body == json!({"order": "HD_2", "tags": ["a\"b"], "to": null})
            },
        ),
        (
            "template: { file: body.xml, content-type: text/xml }",
            "text/xml",
            |request| request.body == "<order ref=\"HD_2\">a&lt;b</order>",
        ),
    ] {
        let sink = Sink::open().await;
        let json = r#"{"order": {{ event.entityRef }}, "tags": [{{ 'a"b' }}], "to": {{ none }}}"#;
        let xml = r#"<order ref="{{ event.entityRef }}">{{ "a<b" }}</order>"#;
        let pipeline = with_files(
            &route(&sink, rest),
            &[("body.json", json), ("body.xml", xml)],
        );
        let request = one(&pipeline, &sink, "HD_2").await;
        assert_eq!(request.header("content-type"), content_type, "{rest}");
        assert!(
            check(&request),
            "{rest}: {}",
            String::from_utf8_lossy(&request.body)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_loops_or_misses_a_field_is_bounded_and_kept() {
    let sink = Sink::open().await;
    let loops = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
    let missing = "{{ event.attributes.no_such.thing }}";
    for (template, says) in [
        (loops, "too many steps"),
        (missing, "event.attributes.no_such"),
    ] {
        let pipeline = with_files(
            &route(&sink, "template: { file: t, content-type: text/plain }"),
            &[("t", template)],
        );
        pipeline.accept(&signed("E", "T_1")).await;
        until("it is a dead letter", || {
            pipeline.json(&["dead-letters", "list"]) != json!([])
        })
        .await;
        let story = pipeline.json(&["events", "show", "T_1"]).to_string();
        assert!(story.contains(says), "{story}");
    }
    assert!(sink.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_are_those_of_standard_webhooks_also_while_a_secret_is_replaced() {
    let sink = Sink::open().await;
    let new = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let old = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let rest = "sign: [ { file: new }, { file: old } ]";
    let pipeline = with_files(&route(&sink, rest), &[("new", new), ("old", old)]);
    let request = one(&pipeline, &sink, "HD_3").await;
    for secret in [new, old] {
        let webhook = standardwebhooks::Webhook::new(secret).unwrap();
        webhook.verify(&request.body, &request.headers).unwrap();
    }
    let stranger =
        standardwebhooks::Webhook::new("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
    assert!(stranger.verify(&request.body, &request.headers).is_err());
    assert!(
        request.headers.get("fluent-signature").is_none(),
        "whoever holds it could replay it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_login_serves_all_and_is_renewed_when_it_is_refused() {
    let logins = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&logins);
    let tokens = Sink::answering(move |request, _| {
        assert_eq!(request.header("authorization"), "Basic aWQ6czNjcmV0");
        assert_eq!(request.body, "grant_type=client_credentials&scope=orders");
        let number = count.fetch_add(1, Ordering::Relaxed) + 1;
        Response::new(Body::from(format!(
            r#"{{"access_token":"T{number}","expires_in":3600}}"#
        )))
    })
    .await;
    let sink = Sink::answering(|request, _| {
        // The first token is taken back after a while.
        let is_old = request.header("authorization") == "Bearer T1";
        status(if is_old && request.header("ce-subject") == "ORDER/LATE" {
            401
        } else {
            200
        })
    })
    .await;
    let rest = format!(
        "auth: {{ oauth2: {{ token-url: \"http://{}/token\", client-id: id, client-secret: {{ file: key }}, scope: orders }} }}",
        tokens.address
    );
    let pipeline = with_files(&route(&sink, &rest), &[("key", "s3cret")]);
    for number in 0..20 {
        pipeline.accept(&signed("E", &format!("O_{number}"))).await;
    }
    until("they arrived", || sink.len() == 20).await;
    assert_eq!(logins.load(Ordering::Relaxed), 1, "one login for all");
    pipeline.accept(&signed("E", "LATE")).await;
    until("it was let in with a new token", || sink.len() == 22).await;
    assert_eq!(sink.requests()[21].header("authorization"), "Bearer T2");
    assert_eq!(logins.load(Ordering::Relaxed), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_answers_is_kept_nowhere_unless_asked_for() {
    let refusal = || {
        Response::builder()
            .status(422)
            .body(Body::from("CANARY-IN-ANSWER"))
            .unwrap()
    };
    let sink = Sink::answering(move |_, _| refusal()).await;
    let pipeline = with_files(&route(&sink, "timeout: 5s"), &[]);
    pipeline.accept(&signed("E", "QUIET")).await;
    until("it is dead", || {
        pipeline.json(&["dead-letters", "list"]) != json!([])
    })
    .await;
    let story = pipeline.json(&["events", "show", "QUIET"]).to_string();
    assert!(
        story.contains("422") && !story.contains("CANARY"),
        "{story}"
    );
    assert!(!pipeline.log().contains("CANARY"));
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_mean_what_the_settings_say_and_an_excerpt_is_kept_when_asked_for() {
    let sink = Sink::answering(
        |request, before| match (request.header("ce-subject"), before) {
            ("ORDER/DONE", _) => status(409),
            ("ORDER/AGAIN", 0) => status(400),
            ("ORDER/NEVER", _) => Response::builder()
                .status(404)
                .body(Body::from("no\r\nsuch ".to_owned() + &"x".repeat(100)))
                .unwrap(),
            _ => status(200),
        },
    )
    .await;
    let rest = "statuses: { done: [409], retry: [400], permanent: [404] }, error-body-bytes: 12";
    let pipeline = with_files(&route(&sink, rest), &[]);
    for reference in ["DONE", "AGAIN", "NEVER"] {
        pipeline.accept(&signed("E", reference)).await;
    }
    until("one is dead", || {
        pipeline.json(&["dead-letters", "list"]) != json!([])
    })
    .await;
    until("one came again", || sink.len() == 4).await;
    let story = pipeline.json(&["events", "show", "NEVER"]).to_string();
    assert!(
        story.contains("the endpoint answered 404: no  such xxx") && !story.contains("xxxx"),
        "{story}"
    );
    assert!(!pipeline.log().contains("no  such"), "never logged");
    for reference in ["DONE", "AGAIN"] {
        let is_done =
            || pipeline.json(&["events", "show", reference])[0]["outcomes"][0]["state"] == "done";
        until("it is done", is_done).await;
    }
    assert_eq!(
        pipeline
            .json(&["dead-letters", "list"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn mistakes_are_found_at_the_start() {
    let refuse = |rest: &str, says: &str| {
        let routes = format!(
            "    - {{ name: all, match: {{}}, dispatcher: http, http: {{ url: \"http://127.0.0.1:1/\", {rest} }} }}\n"
        );
        let pipeline = Pipeline::prepare(&routes);
        fs::write(pipeline.folder.path().join("broken"), "{% for %}").unwrap();
        let said = pipeline.command(&["serve"]);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(
            !said.status.success() && text.contains(says),
            "expected {says:?} in {text}"
        );
    };
    refuse("auth: { bearer: { file: nowhere } }", "reading");
    refuse("headers: { host: x }", "`host` is not for settings");
    refuse(
        "headers: { fluent-signature: x }",
        "`fluent-signature` is not for settings",
    );
    refuse("headers: { \"a b\": x }", "can't be one");
    refuse("template: { file: broken }", "line 1");
    refuse("sign: [ { file: broken } ]", "whsec_");
    refuse(
        "statuses: { done: [200], retry: [200] }",
        "each in one list only",
    );
    refuse(
        "tls: { certificate: broken }",
        "certificate and key together",
    );
    refuse("error-body-bytes: 5000", "at most 400");
    refuse("method: GET", "POST");
}
