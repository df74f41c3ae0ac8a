//! docs/metrics.md is generated from the vocabulary: `UPDATE_EXPECT=1 cargo test -p fluent-telemetry`.

use expect_test::expect_file;

const INTRODUCTION: &str = "\
Lists every metric of the product: at `http://<operator.http>/metrics` for Prometheus, and sent over OTLP where
`telemetry.otlp` is set. Labels have values from the settings or from a fixed list, so that no sender can make a series.
Counters appear with their first event, except those of which the first should page somebody, which begin at 0: 503s,
quarantine, unrouted events. Gauges of a queue are read every 5 seconds, those of routes every 15. On a cluster every
dispatcher shows the routes that it runs, and `fluent-operator` all.

## Look at this first

Seven questions, in this order. `config/observe/grafana` has them as a dashboard, and `config/observe/alerts.yml` asks most of them
all the time; whether somebody is needed now is also what `fluent-webhooks status` says. A counter that had no event yet is
absent, and a panel then says \"no data\": that is no fault.
";

const END: &str = "\
Beside these, `target_info` says which process it is. In Prometheus a histogram has `_bucket`, `_sum` and `_count`.";

#[test]
fn the_documented_metrics_are_those_that_there_are() {
    let text = format!(
        "# Metrics\n\n{INTRODUCTION}\n{}\n{}{END}\n",
        fluent_telemetry::metrics::first_look(),
        fluent_telemetry::metrics::table()
    );
    expect_file!["../../../docs/metrics.md"].assert_eq(&text);
}

#[test]
fn every_name_is_there_once() {
    let all = fluent_telemetry::metrics::all();
    let mut names: Vec<_> = all.iter().map(|metric| metric.prometheus_name()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all.len());
}
