//! A collector that is dead, slow or wrong changes nothing for events.

use std::time::{Duration, Instant};

use e2e::collector::Collector;

use crate::observed::recorded_at;
use crate::pipeline::{Pipeline, free_ports, http, signed, until};
use crate::sink::Sink;

fn prepared(telemetry: String, sink: &Sink) -> (Pipeline, std::net::SocketAddr) {
    let routes = sink.route("all", "match: {}");
    let [metrics] = free_ports();
    let mut pipeline = Pipeline::prepare(&routes);
    pipeline.more = format!("{telemetry}  operator: {{ http: \"{metrics}\" }}\n");
    pipeline.write_settings(&routes);
    pipeline.run();
    (pipeline, metrics)
}

fn scrape(address: std::net::SocketAddr) -> String {
    http(
        address,
        "GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_is_said_once_and_counted() {
    let sink = Sink::open().await;
    let [nobody] = free_ports::<1>();
    let (mut pipeline, metrics) = prepared(recorded_at(nobody), &sink);
    for number in 0..20 {
        pipeline.accept(&signed("E", &format!("N{number}"))).await;
    }
    until("all arrived", || sink.len() == 20).await;
    let failed = |signal: &str| {
        scrape(metrics).contains(&format!("exports_failed_total{{signal=\"{signal}\"}}"))
    };
    until("both are counted", || failed("traces") && failed("metrics")).await;
    let began = Instant::now();
    assert_eq!(pipeline.stop(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "it ends without it"
    );
    let log = pipeline.log();
    let said = log
        .lines()
        .filter(|line| line.contains("the collector takes nothing"))
        .count();
    assert_eq!(said, 2, "once for each signal: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_collector_loses_spans_and_no_events() {
    let sink = Sink::open().await;
    // Longer than an export may take.
    let collector = Collector::slow(Duration::from_secs(60)).await;
    let (mut pipeline, metrics) = prepared(recorded_at(collector.grpc), &sink);
    for number in 0..20 {
        pipeline.accept(&signed("E", &format!("N{number}"))).await;
    }
    until("all arrived", || sink.len() == 20).await;
    until("that is counted", || {
        scrape(metrics).contains("exports_failed_total{signal=\"traces\"}")
    })
    .await;
    assert!(pipeline.is_ready());
    assert_eq!(pipeline.stop(), Some(0));
}

#[test]
fn what_is_wrong_with_the_settings_is_said_at_the_start() {
    let check = |telemetry: &str, expected: &str| {
        let mut pipeline = Pipeline::prepare("    []");
        pipeline.more = telemetry.to_owned();
        pipeline.write_settings("    []");
        let output = pipeline.command(&["check"]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(78) && said.contains(expected),
            "{said}"
        );
    };
    check(
        "  telemetry: { otlp: { endpoint: collector:4317 } }\n",
        "telemetry.otlp.endpoint: expected http://",
    );
    check(
        "  telemetry: { traces: { sample-ratio: 10 } }\n",
        "telemetry.traces.sample-ratio: expected a share",
    );
    check("  telemetry: { trace: {} }\n", "did you mean `traces`?");
    check(
        "  telemetry: { otlp: { endpoint: \"http://c:4317\", timeout: 5m } }\n",
        "telemetry.otlp.timeout: expected up to 60s",
    );
}
