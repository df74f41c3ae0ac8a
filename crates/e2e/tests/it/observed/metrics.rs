//! Metrics: what is exposed is what the vocabulary says, and nobody outside can make a
//! series.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use e2e::collector::Collector;
use e2e::deployment::Service;
use simulator::Retry;

use crate::observed::recorded_at;
use crate::pipeline::{Pipeline, SANDBOX, free_ports, http, signed, until};
use crate::sink::{Sink, status};

/// The series of a scrape: name, labels, value.
type Series = Vec<(String, BTreeMap<String, String>, f64)>;

fn scrape(address: SocketAddr) -> Series {
    let answer = http(
        address,
        "GET /metrics HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    body.lines()
        .filter(|line| !line.starts_with('#') && line.contains(' '))
        .map(series)
        .collect()
}

fn series(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels
        .trim_end_matches('}')
        .split("\",")
        .filter_map(|label| label.split_once("=\""));
    let labels =
        labels.map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()));
    (name.to_owned(), labels.collect(), value.parse().unwrap())
}

fn value(series: &Series, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let fits = |found: &BTreeMap<String, String>| {
        labels
            .iter()
            .all(|(name, value)| found.get(*name).is_some_and(|it| it == value))
    };
    series
        .iter()
        .find(|(it, found, _)| it == name && fits(found))
        .map(|(.., value)| *value)
}

fn pipeline(sink: &Sink, collector: &Collector) -> (Pipeline, SocketAddr) {
    let routes = sink.route(
        "all",
        "match: { event: [E, Dead, Again] }, retry: { initial: 50ms, max-delay: 1s, max-elapsed: 1h }",
    );
    let [metrics] = free_ports();
    let mut pipeline = Pipeline::prepare(&routes);
    pipeline.more = format!(
        "{}  operator: {{ http: \"{metrics}\" }}\n",
        recorded_at(collector.grpc)
    );
    pipeline.write_settings(&routes);
    pipeline.run();
    (pipeline, metrics)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exposed_is_what_the_vocabulary_says() {
    let collector = Collector::open().await;
    let sink = Sink::answering(|request, before| match request.header("ce-type") {
        "Dead" => status(422),
        "Again" if before == 0 => status(503),
        _ => status(200),
    })
    .await;
    let (pipeline, address) = pipeline(&sink, &collector);
    for name in ["E", "Dead", "Again", "Nobody's"] {
        pipeline.accept(&signed(name, "HD_1")).await;
    }
    let twice = signed("E", "HD_2");
    pipeline.accept(&twice).await;
    pipeline.accept(&twice).await;
    let malformed = SANDBOX
        .sign(r#"{"accountId":"ACME","id":"1"}"#.to_owned())
        .unwrap();
    let kept = pipeline
        .sender(Retry::Connection)
        .send(&malformed)
        .await
        .answer
        .unwrap();
    assert_eq!(kept.body["quarantined"], true);
    let forged = "POST /api/v1/fluent-connect/webhook HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
    assert!(http(pipeline.webhook, forged).starts_with("HTTP/1.1 401"));

    let all = [("route", "all")];
    until("everything is counted", || {
        let series = scrape(address);
        let is = |name: &str, labels: &[(&str, &str)], expected: f64| {
            value(&series, name, labels) == Some(expected)
        };
        is(
            "fluent_webhooks_accepted_total",
            &[("account", "ACME"), ("environment", "sandbox")],
            5.0,
        ) && is(
            "fluent_webhooks_duplicate_total",
            &[("account", "ACME")],
            1.0,
        ) && is(
            "fluent_webhooks_refused_total",
            &[("reason", "signature-missing")],
            1.0,
        ) && is(
            "fluent_webhooks_quarantined_total",
            &[("reason", "missing-field")],
            1.0,
        ) && is(
            "fluent_webhooks_verified_total",
            &[("key", "sydney_sandbox"), ("algorithm", "sha512")],
            7.0,
        ) && is("fluent_attempts_total", &[all[0], ("outcome", "done")], 3.0)
            && is(
                "fluent_attempts_total",
                &[all[0], ("outcome", "transient")],
                1.0,
            )
            && is(
                "fluent_dead_letters_total",
                &[all[0], ("reason", "permanent")],
                1.0,
            )
            && is("fluent_dead_letters_total", &[("route", "unrouted")], 1.0)
            && is("fluent_delivery_duration_seconds_count", &all, 3.0)
            && is("fluent_route_dead_letters", &all, 1.0)
            && is("fluent_route_behind", &all, 0.0)
            && is("fluent_pending_review", &[("store", "quarantine")], 1.0)
            && is("fluent_ready", &[], 1.0)
            && is("fluent_key_size", &[("key", "sydney_sandbox")], 1024.0)
            && value(&series, "otel_sdk_processor_span_processed_total", &[]) > Some(0.0)
    })
    .await;
    every_series_is_in_the_vocabulary(&scrape(address));
    until("the collector has the same metrics", || {
        collector
            .metrics()
            .iter()
            .any(|name| name == "fluent.webhooks.accepted")
    })
    .await;
}

fn every_series_is_in_the_vocabulary(series: &Series) {
    let known: BTreeMap<_, _> = telemetry::metrics::all()
        .into_iter()
        .map(|metric| {
            let labels = metric.labels.iter().map(|label| label.replace('.', "_"));
            (metric.prometheus_name(), labels.collect::<BTreeSet<_>>())
        })
        .collect();
    for (name, labels, _) in series.iter().filter(|(name, ..)| name != "target_info") {
        let plain = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        let metric = plain
            .filter(|plain| known.contains_key(*plain))
            .unwrap_or(name);
        let expected = known
            .get(metric)
            .unwrap_or_else(|| panic!("{name} is not in the vocabulary"));
        let found: BTreeSet<_> = labels
            .keys()
            .filter(|label| *label != "le")
            .cloned()
            .collect();
        assert!(
            found.is_subset(expected),
            "{name}: {found:?}, expected {expected:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_outside_can_make_a_series() {
    let collector = Collector::open().await;
    let sink = Sink::open().await;
    let (pipeline, address) = pipeline(&sink, &collector);
    pipeline.accept(&signed("E", "HD_0")).await;
    until("it was delivered", || sink.len() == 1).await;
    for number in 0..100 {
        let body = format!(
            r#"{{"id":"{number}","name":"Hostile{number}","accountId":"ACME","retailerId":"34","entityType":"T{number}","entityRef":"R{number}"}}"#
        );
        pipeline.accept(&SANDBOX.sign(body).unwrap()).await;
        let request =
            format!("M{number} /p{number} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
        assert!(http(pipeline.webhook, &request).starts_with("HTTP/1.1 404"));
        let stranger = SANDBOX
            .sign(format!(r#"{{"id":"{number}","accountId":"S{number}"}}"#))
            .unwrap();
        let refused = pipeline
            .sender(Retry::Never)
            .send(&stranger)
            .await
            .answer
            .unwrap();
        assert_eq!(refused.status, 403);
    }
    until("all are counted", || {
        value(
            &scrape(address),
            "fluent_dead_letters_total",
            &[("route", "unrouted")],
        ) >= Some(100.0)
    })
    .await;
    let series = scrape(address);
    assert_eq!(
        value(
            &series,
            "fluent_dead_letters_total",
            &[("route", "unrouted")]
        ),
        Some(100.0)
    );
    let hostile = series
        .iter()
        .find(|(_, labels, _)| labels.values().any(|value| value.contains("99")));
    assert!(hostile.is_none(), "{hostile:?}");
    assert!(series.len() < 500, "{}", series.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_of_its_own_shows_how_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let [grpc, health, metrics] = free_ports();
    let config = folder.path().join("handler.yml");
    let settings = format!(
        "fluent-connect:\n  health: {health}\n  operator: {{ grpc: \"{grpc}\", http: \"{metrics}\" }}\n  routes:\n    \
         - {{ name: there, match: {{}}, dispatcher: log }}\n"
    );
    std::fs::write(&config, settings).unwrap();
    let mut service = Service::new("handler", "stage-dispatcher", config, health, None);
    service.set_args(&["--serve-dispatcher", "there"]);
    service.restart();
    until("it says that it is ready", || {
        value(&scrape(metrics), "fluent_ready", &[]) == Some(1.0)
    })
    .await;
    assert!(value(&scrape(metrics), "process_memory_usage_bytes", &[]) > Some(1e6));
}
