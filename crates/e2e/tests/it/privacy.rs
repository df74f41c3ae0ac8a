//! A canary in bodies, attributes, headers and endpoints' errors is in no log, span or
//! metric, and on the servers in nothing but bodies.

use e2e::collector::Collector;
use e2e::deployment::{Deployment, Plan};
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
    let routes = sink.route(
        "all",
        "match: {}, retry: { initial: 50ms, max-delay: 1s, max-elapsed: 1h }",
    );
    let mut pipeline = Pipeline::prepare(&routes);
    pipeline.more = format!(
        "{}  operator: {{ http: \"{metrics}\" }}\n",
        recorded_at(collector.grpc)
    );
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
    until("it is dead", || {
        pipeline
            .json(&["dead-letters", "list"])
            .as_array()
            .unwrap()
            .len()
            == 1
    })
    .await;
    assert!(
        !pipeline
            .json(&["dead-letters", "list"])
            .to_string()
            .contains(CANARY)
    );
    assert!(
        !pipeline
            .json(&["events", "show", "HD_1"])
            .to_string()
            .contains(CANARY)
    );
    let scrape = http(
        metrics,
        "GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n",
    );
    assert!(
        scrape.contains("fluent_attempts_total") && !scrape.contains(CANARY),
        "{scrape}"
    );
    assert_eq!(pipeline.stop(), Some(0));
    assert!(
        collector.has("POST webhook") && collector.has("permanent"),
        "spans are there"
    );
    assert!(!collector.has(CANARY), "{:#?}", collector.spans());
    let log = pipeline.log();
    assert!(
        log.contains("a dead letter now") && log.contains("signature-malformed"),
        "the log is there: {log}"
    );
    assert!(!log.contains(CANARY), "{log}");
}

/// Everything that the servers keep beside bodies: subjects and headers of every stream.
async fn kept_beside_bodies(deployment: &Deployment) -> String {
    let options =
        async_nats::ConnectOptions::with_user_and_password("root".to_owned(), "root".to_owned());
    let client = options.connect(deployment.servers.urls()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let mut kept = String::new();
    for name in [
        "FLUENT_EVENTS",
        "FLUENT_RETRIES",
        "FLUENT_DEAD",
        "FLUENT_ATTEMPTS",
    ] {
        let stream = jetstream.get_stream(name).await.unwrap();
        let state = stream.cached_info().state.clone();
        for sequence in state.first_sequence..=state.last_sequence {
            let Ok(message) = stream.get_raw_message(sequence).await else {
                continue;
            };
            kept += &format!("{name} {} {:?}\n", message.subject, message.headers);
            // The history is a message's whole body, and has no event's.
            if name == "FLUENT_ATTEMPTS" {
                kept += &String::from_utf8_lossy(&message.payload);
            }
        }
    }
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_on_the_servers_says_nothing_of_its_body() {
    let sink = Sink::answering(|_, before| {
        let mut response = status(if before < 1 { 503 } else { 422 });
        response
            .headers_mut()
            .insert("x-why", CANARY.parse().unwrap());
        *response.body_mut() = axum::body::Body::from(CANARY);
        response
    })
    .await;
    let routes = sink.route(
        "all",
        "match: {}, start: beginning, retry: { initial: 50ms, max-delay: 1s, max-elapsed: 1h }",
    );
    let mut deployment = Deployment::start(Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        ..Plan::new(routes)
    });
    let event = json!({
        "id": "1", "name": "E", "accountId": "ACME", "retailerId": "34", "entityRef": "HD_1",
        "attributes": {"email": CANARY}, "meta": CANARY,
    });
    let signed = SANDBOX.sign(event.to_string()).unwrap();
    let request = format!(
        "POST /api/v1/fluent-connect/webhook HTTP/1.1\r\nhost: t\r\nconnection: close\r\nfluent-signature: {}\r\nx: {CANARY}\r\ncontent-length: {}\r\n\r\n{}",
        signed.sha512,
        signed.body.len(),
        String::from_utf8(signed.body.to_vec()).unwrap(),
    );
    assert!(http(deployment.gateways[0].webhook.unwrap(), &request).starts_with("HTTP/1.1 200"));
    until("it is dead", || {
        deployment
            .json(&["dead-letters", "list"])
            .as_array()
            .is_some_and(|letters| letters.len() == 1)
    })
    .await;
    let kept = kept_beside_bodies(&deployment).await;
    assert!(
        kept.contains("FLUENT_DEAD fluent.dead.all") && kept.contains("permanent"),
        "{kept}"
    );
    assert!(!kept.contains(CANARY), "{kept}");
    for service in deployment
        .gateways
        .iter_mut()
        .chain(&mut deployment.dispatchers)
    {
        assert_eq!(service.stop(), Some(0));
        assert!(
            !service.log().is_empty() && !service.log().contains(CANARY),
            "{}",
            service.log()
        );
    }
}
