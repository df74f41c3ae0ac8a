//! What people look at, against a real Prometheus that asks the real services: every
//! panel shows something, every alert is quiet on a good day and wakes up on a bad one.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use e2e::collector::Collector;
use e2e::deployment::{Deployment, Plan, Service};
use e2e::prometheus::{Prometheus, promtool};
use e2e::status::is_of_the_machine;
use serde_json::Value;
use simulator::api::{Fluent, World};
use simulator::{Retry, Sender};

use crate::pipeline::{SANDBOX, signed};
use crate::sink::{Sink, status};

/// Longest wait for what is looked at every 15 seconds, and then every second.
const PATIENCE: Duration = Duration::from_secs(90);

fn shipped(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(shipped(path)).unwrap()
}

/// The names of the shipped alerts.
fn alerts() -> BTreeSet<String> {
    let rules = read("config/observe/alerts.yml");
    rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: ").map(str::to_owned))
        .collect()
}

#[test]
fn the_rules_are_good_and_pass_their_tests() {
    for args in [
        ["check", "rules", "alerts.yml"],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "alerts.test.yml"],
    ] {
        let output = promtool()
            .args(args)
            .current_dir(shipped("config/observe"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
    let tested = read("config/observe/alerts.test.yml");
    for alert in alerts() {
        assert!(
            tested.contains(&format!("\"{alert}\"")),
            "no test makes {alert} fire"
        );
    }
}

/// Panels with the expressions that they show, ready to be asked.
fn panels() -> Vec<(String, Vec<String>)> {
    let dashboard: Value = serde_json::from_str(&read(
        "config/observe/grafana/dashboards/fluent-webhooks.json",
    ))
    .unwrap();
    let asked = |target: &Value| {
        let expression = target["expr"].as_str().unwrap();
        expression
            .replace("$__rate_interval", "1m")
            .replace("$route", ".*")
    };
    let panels = dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|panel| panel["type"] != "row");
    let targets = |panel: &Value| {
        panel["targets"]
            .as_array()
            .unwrap()
            .iter()
            .map(asked)
            .collect()
    };
    panels
        .map(|panel| (panel["title"].as_str().unwrap().to_owned(), targets(panel)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_people_look_at_tells_a_good_day_from_a_bad_one() {
    let collector = Collector::open().await;
    let sink = sink().await;
    let mut deployment = Deployment::start(plan(&sink, &collector));
    let fluent = Fluent::open(([127, 0, 0, 1], 0).into(), World::new("ACME", 34))
        .await
        .unwrap();
    let mut reconciler = deployment.reconciler(&fluent, "Good");
    reconciler.restart();
    let files = [shipped("config/observe/alerts.yml")];
    let prometheus = Prometheus::start(&configuration(&deployment, &reconciler), &[&files[0]]);
    let sender = Sender::new(deployment.urls().remove(0), Retry::Connection).unwrap();
    for number in 0..20 {
        accept(&sender, "Good", number).await;
    }
    // Strangers knock every day.
    refuse(&sender, 0).await;
    shows(&prometheus, "Accepted").await;
    shows(&prometheus, "Oldest that waits").await;
    is_a_good_day(&prometheus).await;

    make_a_bad_day(&deployment, &sender, &collector).await;
    for (title, _) in panels() {
        shows(&prometheus, &title).await;
    }
    for (rule, health, error) in prometheus.rules().await {
        assert_eq!(health, "ok", "{rule}: {error}");
    }
    for alert in [
        "FluentDeadLetters",
        "FluentQuarantined",
        "FluentRoutePaused",
        "FluentBreakerOpen",
        "FluentGenuineRefused",
        "FluentTelemetryLost",
    ] {
        wakes(&prometheus, alert).await;
    }
    deployment.servers.kill_all();
    accept(&sender, "Good", 100).await;
    for alert in ["FluentQueueAway", "FluentNotReady"] {
        wakes(&prometheus, alert).await;
    }
    deployment.gateways[0].kill();
    wakes(&prometheus, "FluentProcessGone").await;
}

/// Everybody has said that they are well, and then nothing wakes up for a while.
async fn is_a_good_day(prometheus: &Prometheus) {
    let began = std::time::Instant::now();
    while prometheus
        .query("min(fluent_ready) == 1 and min(fluent_queue_reachable) == 1")
        .await
        .unwrap()
        .is_empty()
        || !firing(prometheus).await.is_empty()
    {
        assert!(began.elapsed() < PATIENCE, "{:?}", firing(prometheus).await);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    // What a machine that stands still for a while sets off ends by itself.
    let mut quiet = 0;
    while quiet < 6 {
        let firing = firing(prometheus).await;
        quiet = if firing.is_empty() { quiet + 1 } else { 0 };
        assert!(began.elapsed() < PATIENCE, "a good day: {firing:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// What fires and tells of the product.
async fn firing(prometheus: &Prometheus) -> Vec<String> {
    let mut all = prometheus.alerts().await;
    all.retain(|alert| !is_of_the_machine(alert));
    all
}

async fn sink() -> Sink {
    Sink::answering(|request, _| match request.header("ce-type") {
        "Dead" => status(422),
        "Down" => status(503),
        _ => status(200),
    })
    .await
}

fn plan(sink: &Sink, collector: &Collector) -> Plan {
    let good = sink.route(
        "good",
        "match: { event: [Good, Dead] }, origins: [webhook, reconciled], start: beginning",
    );
    let down = sink.route("down", "match: { event: Down }, start: beginning, retry: { initial: 100ms, max-delay: 1s, max-elapsed: 1h }, breaker: { failures: 5, cooldown: 30s }");
    let telemetry = format!(
        "  operator: {{ http: \"127.0.0.1:0\" }}\n  telemetry: {{ otlp: {{ endpoint: \"http://{}\", timeout: 1s, metrics-interval: 1s }}, traces: {{ sample-ratio: 1 }} }}\n",
        collector.grpc
    );
    Plan {
        servers: 1,
        gateways: 1,
        dispatchers: 1,
        telemetry,
        ..Plan::new(format!("{good}{down}"))
    }
}

/// The shipped configuration with the addresses of here, and a second for a quarter
/// of a minute.
fn configuration(deployment: &Deployment, reconciler: &Service) -> String {
    let list = |services: &[&Service]| {
        let all: Vec<_> = services
            .iter()
            .map(|service| service.metrics().to_string())
            .collect();
        all.join(", ")
    };
    let gateways = deployment.gateways.iter();
    let dispatchers = deployment.dispatchers.iter();
    let others: Vec<_> = dispatchers.chain([reconciler]).collect();
    let shipped = read("config/observe/prometheus.yml");
    let ours = shipped
        .replace("15s", "1s")
        .replace(
            "gateway-1:9464, gateway-2:9464",
            &list(&gateways.collect::<Vec<_>>()),
        )
        .replace("dispatcher-1:9464, dispatcher-2:9464", &list(&others));
    assert!(
        !ours.contains("9464") && ours.contains("scrape_interval: 1s"),
        "{ours}"
    );
    ours
}

async fn accept(sender: &Sender, name: &str, number: usize) {
    let answer = sender
        .send(&signed(name, &format!("{name}_{number}")))
        .await
        .answer
        .unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn refuse(sender: &Sender, number: usize) {
    let stranger = SANDBOX
        .sign(format!(
            r#"{{"id":"{number}","accountId":"NOBODY","name":"E"}}"#
        ))
        .unwrap();
    assert_eq!(sender.send(&stranger).await.answer.unwrap().status, 403);
}

/// Something of everything: dead, failing, paused, quarantined, forged, dropped.
async fn make_a_bad_day(deployment: &Deployment, sender: &Sender, collector: &Collector) {
    collector.slow_down(Duration::from_secs(60));
    for number in 0..30 {
        accept(sender, "Dead", number).await;
        accept(sender, "Down", number).await;
        refuse(sender, number).await;
    }
    let malformed = SANDBOX
        .sign(r#"{"accountId":"ACME","id":"1"}"#.to_owned())
        .unwrap();
    assert_eq!(sender.send(&malformed).await.answer.unwrap().status, 200);
    let twice = signed("Good", "TWICE");
    for _ in 0..2 {
        assert_eq!(sender.send(&twice).await.answer.unwrap().status, 200);
    }
    let paused = deployment.command("operator", &["routes", "pause", "good"]);
    assert!(paused.status.success(), "{paused:?}");
}

/// Waits until a panel has something to show; every expression of it must be understood.
async fn shows(prometheus: &Prometheus, title: &str) {
    let (_, expressions) = panels().into_iter().find(|(it, _)| it == title).unwrap();
    let began = std::time::Instant::now();
    loop {
        let mut values = 0;
        for expression in &expressions {
            let found = prometheus.query(expression).await;
            values += found
                .unwrap_or_else(|error| panic!("{title}: {expression}: {error}"))
                .len();
        }
        if values > 0 {
            return;
        }
        assert!(
            began.elapsed() < PATIENCE,
            "the panel {title} is empty: {expressions:?}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn wakes(prometheus: &Prometheus, alert: &str) {
    let began = std::time::Instant::now();
    while !prometheus.alerts().await.iter().any(|it| it == alert) {
        assert!(
            began.elapsed() < PATIENCE,
            "{alert} stays quiet: {:?}",
            prometheus.alerts().await
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[test]
fn everything_that_is_asked_for_is_in_the_vocabulary() {
    let known: BTreeSet<_> = telemetry::metrics::all()
        .iter()
        .map(|metric| metric.prometheus_name())
        .collect();
    let asked: String = panels()
        .into_iter()
        .flat_map(|(_, asked)| asked)
        .collect::<Vec<_>>()
        .join("\n")
        + &read("config/observe/alerts.yml");
    let words = asked.split(|c: char| !(c.is_alphanumeric() || c == '_'));
    let ours = |word: &&str| {
        ["fluent_", "process_", "otel_"]
            .iter()
            .any(|prefix| word.starts_with(prefix))
    };
    let mut count = 0;
    for name in words.filter(ours) {
        let plain = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end));
        let is_known = known.contains(name) || plain.is_some_and(|plain| known.contains(plain));
        assert!(is_known, "{name} is no metric");
        count += 1;
    }
    assert!(count > 50, "{count}");
}
