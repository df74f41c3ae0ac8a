//! One trace over five processes.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use e2e::collector::{CollectedSpans, Collector};
use e2e::deployment::{Deployment, Plan, Service, free_ports, until};
use simulator::{Retry, Sender};
use tempfile::TempDir;

use crate::observed::{one, recorded_at};
use crate::pipeline::signed;
use crate::sink::{HANGS, Sink, status};

const PATIENCE: Duration = Duration::from_secs(60);

/// A process that serves an HTTP dispatcher, and is traced.
fn handler(folder: &TempDir, sink: &Sink, telemetry: &str) -> (Service, SocketAddr) {
    let [grpc, health] = free_ports();
    let config = folder.path().join("handler.yml");
    let routes = sink.route("there", "match: {}");
    let settings = format!(
        "fluent-connect:\n{telemetry}  health: {health}\n  operator: {{ grpc: \"{grpc}\" }}\n  routes:\n{routes}"
    );
    fs::write(&config, settings).unwrap();
    let mut service = Service::new("handler", "stage-dispatcher", config, health, None);
    service.set_args(&["--serve-dispatcher", "there"]);
    service.restart();
    (service, grpc)
}

/// The attempts of a trace that were recorded, by number.
fn attempts(spans: &[CollectedSpans]) -> Vec<&CollectedSpans> {
    let mut found: Vec<_> = spans.iter().filter(|span| span.name == "consume").collect();
    found.sort_by_key(|span| span.says("fluent.attempt").parse::<u32>().unwrap());
    found
}

fn child<'s>(
    spans: &'s [CollectedSpans],
    parent: &CollectedSpans,
    name: &str,
) -> &'s CollectedSpans {
    let found: Vec<_> = spans
        .iter()
        .filter(|span| span.name == name && span.parent == parent.id)
        .collect();
    assert_eq!(found.len(), 1, "{name} below {parent:#?} in {spans:#?}");
    found[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_one_trace_from_the_request_to_the_last_attempt() {
    let collector = Collector::open().await;
    let telemetry = recorded_at(collector.grpc);
    // Not now; then no answer, in the middle of which the dispatcher is killed; then well.
    let sink = Sink::answering(|_, before| match before {
        0 => status(503),
        1 => status(HANGS),
        _ => status(200),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (_handler, grpc) = handler(&folder, &sink, &telemetry);
    let route = format!(
        "    - {{ name: far, match: {{}}, start: beginning, dispatcher: grpc, \
         grpc: {{ endpoints: [\"http://{grpc}\"], timeout: 40s }}, retry: {{ initial: 100ms, max-delay: 200ms, max-elapsed: 1h }} }}\n"
    );
    let plan = Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        telemetry,
        ..Plan::new(route)
    };
    let mut deployment = Deployment::start(plan);
    let sender = Sender::new(deployment.urls().remove(0), Retry::Connection).unwrap();
    let answer = sender
        .send(&signed("OrderReady", "HD_1"))
        .await
        .answer
        .unwrap();
    let trace = answer.body["traceId"].as_str().unwrap().to_owned();

    until(
        "the second attempt is on its way, and the first one was seen",
        PATIENCE,
        || sink.len() == 2 && attempts(&collector.trace(&trace)).len() == 1,
    )
    .await;
    deployment.dispatchers[0].kill();
    deployment.dispatchers[0].restart();
    until("it arrived after all, and that was seen", PATIENCE, || {
        sink.len() == 3
            && attempts(&collector.trace(&trace))
                .iter()
                .any(|span| !span.has_failed)
    })
    .await;
    until("everybody has sent what they recorded", PATIENCE, || {
        let spans = collector.trace(&trace);
        let count = |name: &str| spans.iter().filter(|span| span.name == name).count();
        count("POST webhook") == 1 && count("POST") >= 3
    })
    .await;

    let spans = collector.trace(&trace);
    let request = one(&spans, "POST webhook");
    assert_eq!(
        (
            request.service.as_str(),
            request.kind.as_str(),
            request.parent.as_str()
        ),
        ("fluent-gateway", "Server", "")
    );
    assert_eq!(request.says("http.response.status_code"), "200");
    assert_eq!(one(&spans, "verify").parent, request.id);
    let published = one(&spans, "publish fluent.events");
    assert_eq!(
        (published.parent.as_str(), published.kind.as_str()),
        (request.id.as_str(), "Producer")
    );
    assert_eq!(
        published.says("messaging.message.id"),
        answer.body["eventId"].as_str().unwrap()
    );

    // The attempt whose process was killed is known by its number only.
    let attempts = attempts(&spans);
    let numbers: Vec<_> = attempts
        .iter()
        .map(|span| span.says("fluent.attempt"))
        .collect();
    assert_eq!(numbers, ["1", "3"], "{spans:#?}");
    let outgoing: Vec<_> = sink
        .requests()
        .iter()
        .map(|request| request.header("traceparent").to_owned())
        .collect();
    for (consumed, outgoing) in attempts.iter().zip([&outgoing[0], &outgoing[2]]) {
        assert_eq!(
            (consumed.parent.as_str(), consumed.service.as_str()),
            (published.id.as_str(), "fluent-dispatcher")
        );
        let attempt = child(&spans, consumed, "attempt");
        let call = child(&spans, attempt, "fluent.webhooks.v1.Dispatcher/Dispatch");
        let served = child(&spans, call, "fluent.webhooks.v1.Dispatcher/Dispatch");
        assert_eq!(
            (call.kind.as_str(), served.kind.as_str()),
            ("Client", "Server")
        );
        let posted = child(&spans, served, "POST");
        assert_eq!(outgoing, &format!("00-{trace}-{}-01", posted.id));
    }
    assert!(attempts[0].has_failed, "{spans:#?}");
    assert_eq!(
        child(&spans, attempts[0], "attempt").says("fluent.outcome"),
        "transient"
    );
    assert_eq!(attempts[1].says("fluent.deaths"), "1");
    // Who was called then was told that nobody waits any more.
    assert!(
        spans
            .iter()
            .any(|span| span.name == "POST" && span.says("error.type") == "cut-off"),
        "{spans:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_in_a_spool_says_so_in_its_trace() {
    let collector = Collector::open().await;
    let sink = Sink::open().await;
    let telemetry = recorded_at(collector.grpc);
    let route = sink.route("all", "match: {}, start: beginning");
    let plan = Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        telemetry,
        ..Plan::new(route)
    };
    let mut deployment = Deployment::start(plan);
    let sender = Sender::new(deployment.urls().remove(0), Retry::Connection).unwrap();
    deployment.servers.kill_all();
    let answer = sender
        .send(&signed("OrderReady", "HD_1"))
        .await
        .answer
        .unwrap();
    assert_eq!(answer.status, 200);
    let trace = answer.body["traceId"].as_str().unwrap().to_owned();
    deployment.servers.start_all().unwrap();
    let has = |name: &str| collector.trace(&trace).iter().any(|span| span.name == name);
    until("it was forwarded and delivered", PATIENCE, || {
        has("forward from the spool") && has("consume")
    })
    .await;
    let spans = collector.trace(&trace);
    let published = one(&spans, "publish fluent.events");
    let forwarded = one(&spans, "forward from the spool");
    assert_eq!(forwarded.parent, published.id);
    assert!(forwarded.took > published.took, "{forwarded:?}");
    assert_eq!(one(&spans, "consume").parent, published.id);
}
