//! The vocabulary as a table for the documentation.

use std::fmt::Write;

use super::instrument::{InstrumentKind, Metric};
use super::vocabulary::all;

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

/// The vocabulary as a table in Markdown: the middle of `docs/metrics.md`.
pub fn table() -> String {
    let mut table = String::from(
        "| metric | in Prometheus | kind, unit | labels | what it says |\n|---|---|---|---|---|\n",
    );
    for metric in all() {
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
            "| `{}` | `{}` | {shape}, {} | {} | {} |",
            metric.name,
            metric.prometheus_name(),
            metric.unit,
            labels.join(", "),
            metric.help
        );
    }
    table
}
