//! A canary in bodies, attributes, headers and endpoints' errors is in no log, span or
//! metric.

use e2e::collector::Collector;
use serde_json::json;

use crate::observed::recorded_at;
use crate::pipeline::{Pipeline, SANDBOX, free_ports, http, until};
use crate::sink::{Sink, status};

const CANARY: &str = "CANARY-7f3a9c";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_body_holds_is_in_no_log_span_or_metric() {
    let collector = Collector::open().await;
    let [metrics] = free_ports();
    let sink = Sink::answering(|_, before| {
        let mut response = status(if before < 1 { 503 } else { 422 });
        *response.body_mut() = axum::body::Body::from(CANARY);
        response
    })
    .await;
    let routes = sink.route("all", "match: {}, retry: { first: 50ms, ceiling: 1s, for: 1h }");
    let mut pipeline = Pipeline::prepare(&routes);
    pipeline.more = format!("{}  operator: {{ http: \"{metrics}\" }}\n", recorded_at(collector.grpc));
    pipeline.write_settings(&routes);
    pipeline.run();
    let event = json!({
        "id": "1", "name": "E", "accountId": "ACME", "retailerId": "34", "entityRef": "HD_1",
        "attributes": {"email": CANARY}, "meta": CANARY, "other": [CANARY],
    });
    let signed = SANDBOX.sign(event.to_string()).unwrap();
    pipeline.accept(&signed).await;
    for odd in [
        format!(r#"{{"accountId":"ACME","id":"{CANARY}"}}"#),
        CANARY.to_owned(),
        format!(r#"{{"accountId":"{CANARY}"}}"#),
    ] {
        let signed = SANDBOX.sign(odd).unwrap();
        drop(pipeline.sender(simulator::Retry::Never).send(&signed).await);
    }
    let forged = format!(
        "POST /api/v1/fluent-connect/webhook HTTP/1.1\r\nhost: t\r\nconnection: close\r\nfluent-signature: {CANARY}\r\nx: {CANARY}\r\ncontent-length: 13\r\n\r\n{CANARY}"
    );
    assert!(http(pipeline.webhook, &forged).starts_with("HTTP/1.1 401"));
    until("it is dead", || pipeline.json(&["dead-letters", "list"]).as_array().unwrap().len() == 1).await;
    assert!(!pipeline.json(&["dead-letters", "list"]).to_string().contains(CANARY));
    assert!(!pipeline.json(&["events", "show", "HD_1"]).to_string().contains(CANARY));
    let scrape = http(metrics, "GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
    assert!(scrape.contains("fluent_attempts_total") && !scrape.contains(CANARY), "{scrape}");
    assert_eq!(pipeline.stop(), Some(0));
    assert!(collector.has("POST webhook") && collector.has("permanent"), "spans are there");
    assert!(!collector.has(CANARY), "{:#?}", collector.spans());
    let log = pipeline.log();
    assert!(
        log.contains("a dead letter now") && log.contains("signature-malformed"),
        "the log is there: {log}"
    );
    assert!(!log.contains(CANARY), "{log}");
}
