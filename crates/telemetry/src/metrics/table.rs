//! The vocabulary as a table for the documentation.

use std::fmt::Write;

use super::instrument::{InstrumentKind, Metric};
use super::vocabulary::all;
use crate::alerts::{self, Alert};

impl Metric {
    /// The name under which Prometheus sees it.
    pub fn prometheus_name(&self) -> String {
        let mut name = self.name.replace('.', "_");
        name.push_str(match self.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            "1" => "_ratio",
            _ => "",
        });
        if self.shape == InstrumentKind::Counter {
            name.push_str("_total");
        }
        name
    }
}

/// Groups of metrics, each with the beginnings of its metrics' names. A metric is in the first
/// group that fits it, and the last takes every metric.
const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Webhooks that come in",
        &["fluent.webhooks.", "fluent.key.", "http.server."],
    ),
    (
        "Routes and deliveries",
        &[
            "fluent.route.",
            "fluent.attempt",
            "fluent.delivery.",
            "fluent.dead_letters",
        ],
    ),
    ("The queue and spools", &["fluent.queue.", "fluent.spool."]),
    ("Fluent's API", &["fluent.api.", "fluent.reconcile."]),
    ("The process", &[""]),
];

/// What to look at first: a question, the query that answers it, and the good answer.
const FIRST: [(&str, &str, &str); 7] = [
    ("Does it take webhooks?", "min(fluent_ready)", "1"),
    (
        "How many come?",
        "sum by (account) (rate(fluent_webhooks_accepted_total[5m]))",
        "about as many as an hour or a day ago",
    ),
    (
        "Are some refused?",
        "sum by (reason) (rate(fluent_webhooks_refused_total[5m]))",
        "near 0; strangers may be refused at any time",
    ),
    (
        "How long does Fluent wait?",
        "histogram_quantile(0.99, sum by (le) (rate(http_server_request_duration_seconds_bucket[5m])))",
        "far below the 14 s after which Fluent gives up",
    ),
    (
        "Does each route keep up?",
        "max by (route) (fluent_route_oldest_age_seconds)",
        "seconds",
    ),
    (
        "Do destinations take events?",
        "sum by (route, outcome) (rate(fluent_attempts_total[5m]))",
        "nearly all `done`",
    ),
    (
        "Does something wait for a person?",
        "sum by (route) (fluent_route_dead_letters)",
        "0",
    ),
];

/// The table of what to look at first, in Markdown.
pub fn first_look() -> String {
    let mut table = String::from("| question | query | well is |\n|---|---|---|\n");
    for (question, query, well) in FIRST {
        let _ = writeln!(table, "| {question} | `{query}` | {well} |");
    }
    table
}

/// The vocabulary as tables in Markdown, one for each group: the middle of `docs/metrics.md`.
pub fn table() -> String {
    let mut tables = String::new();
    for (number, (title, _)) in GROUPS.iter().enumerate() {
        let _ = writeln!(tables, "## {title}\n");
        tables.push_str(
            "| metric | in Prometheus | kind, unit | labels | what it says | alerts |\n|---|---|---|---|---|---|\n",
        );
        for metric in all().iter().filter(|metric| group_of(metric) == number) {
            write_row(&mut tables, metric);
        }
        tables.push('\n');
    }
    tables
}

fn group_of(metric: &Metric) -> usize {
    let fits =
        |(_, begins): &(&str, &[&str])| begins.iter().any(|begin| metric.name.starts_with(begin));
    GROUPS.iter().position(fits).unwrap_or(GROUPS.len() - 1)
}

fn write_row(table: &mut String, metric: &Metric) {
    let shape = match metric.shape {
        InstrumentKind::Counter => "counter",
        InstrumentKind::Gauge => "gauge",
        InstrumentKind::Histogram => "histogram",
    };
    let labels: Vec<_> = metric
        .labels
        .iter()
        .map(|label| format!("`{label}`"))
        .collect();
    let _ = writeln!(
        table,
        "| `{}` | `{}` | {shape}, {} | {} | {} | {} |",
        metric.name,
        metric.prometheus_name(),
        metric.unit,
        labels.join(", "),
        metric.help,
        alerts_of(metric).join(", ")
    );
}

/// Links to the pages of the alerts whose rules ask for a metric.
fn alerts_of(metric: &Metric) -> Vec<String> {
    let name = metric.prometheus_name();
    let asks = |alert: &&Alert| {
        let rule = alert.rule.as_ref();
        rule.is_some_and(|rule| names_in(rule.expression).any(|asked| is_of(asked, &name)))
    };
    alerts::all()
        .into_iter()
        .filter(asks)
        .map(|alert| format!("[{0}](runbook/{0}.md)", alert.name))
        .collect()
}

/// Whether a series belongs to a metric: histograms have three each.
fn is_of(series: &str, metric: &str) -> bool {
    let rest = series.strip_prefix(metric);
    rest.is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
}

/// The words of a query, among them the names of series.
fn names_in(query: &str) -> impl Iterator<Item = &str> {
    query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_look_at_first_asks_for_metrics_that_there_are() {
        let known: Vec<_> = all()
            .iter()
            .map(|metric| metric.prometheus_name())
            .collect();
        for (question, query, _) in FIRST {
            let ours = names_in(query)
                .filter(|name| name.starts_with("fluent_") || name.starts_with("http_"));
            let ours: Vec<_> = ours.collect();
            assert!(!ours.is_empty(), "{question}");
            for name in ours {
                assert!(known.iter().any(|known| is_of(name, known)), "{name}");
            }
        }
    }

    #[test]
    fn every_alert_that_asks_for_a_metric_of_ours_is_beside_it() {
        let table = table();
        for alert in alerts::all() {
            let asks = alert
                .rule
                .as_ref()
                .is_some_and(|rule| rule.expression.contains("fluent_"));
            let link = format!("[{}]", alert.name);
            assert!(!asks || table.contains(&link), "{}", alert.name);
        }
    }
}
