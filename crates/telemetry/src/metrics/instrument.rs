//! The types of metrics: counters, gauges and histograms, with the names of their labels.

use std::sync::OnceLock;

use opentelemetry::{KeyValue, StringValue, Value, global, metrics};

/// OpenTelemetry's name for the origin of the metrics.
const SCOPE: &str = "fluent-webhooks";

/// Bounds of histograms of time, in seconds: from a commit to the time after which a sender gives
/// up, and up to the days that a retry may take.
const SECONDS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 14.0, 60.0, 600.0,
    3600.0, 21_600.0, 86_400.0,
];

/// One row of the vocabulary.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// OpenTelemetry's name.
    pub name: &'static str,
    /// The kind of number.
    pub shape: InstrumentKind,
    /// UCUM: `s`, `By`, or a word in braces.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// Its meaning, in a sentence.
    pub help: &'static str,
}

/// The kind of number of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstrumentKind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts values in ranges.
    Histogram,
}

/// A counter, which only rises.
#[derive(Debug)]
pub struct Counter<const LABELS: usize> {
    pub(super) metric: Metric,
    names: [&'static str; LABELS],
    made: OnceLock<metrics::Counter<u64>>,
}

impl<const LABELS: usize> Counter<LABELS> {
    pub(super) const fn new(
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str; LABELS],
        help: &'static str,
    ) -> Self {
        let metric = Metric {
            name,
            shape: InstrumentKind::Counter,
            unit,
            labels,
            help,
        };
        Self {
            metric,
            names: *labels,
            made: OnceLock::new(),
        }
    }

    /// Adds `count` under these values of the labels, in their order.
    pub fn add(&self, count: u64, values: [StringValue; LABELS]) {
        let counter = self.made.get_or_init(|| {
            let Metric {
                name, unit, help, ..
            } = self.metric;
            global::meter(SCOPE)
                .u64_counter(name)
                .with_unit(unit)
                .with_description(help)
                .build()
        });
        counter.add(count, &labelled(self.names, values));
    }
}

/// A gauge, which shows a number as it is now.
#[derive(Debug)]
pub struct Gauge<const LABELS: usize> {
    pub(super) metric: Metric,
    names: [&'static str; LABELS],
    made: OnceLock<metrics::Gauge<f64>>,
}

impl<const LABELS: usize> Gauge<LABELS> {
    pub(super) const fn new(
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str; LABELS],
        help: &'static str,
    ) -> Self {
        let metric = Metric {
            name,
            shape: InstrumentKind::Gauge,
            unit,
            labels,
            help,
        };
        Self {
            metric,
            names: *labels,
            made: OnceLock::new(),
        }
    }

    /// Sets `value` under these values of the labels, in their order.
    pub fn set(&self, value: f64, values: [StringValue; LABELS]) {
        let gauge = self.made.get_or_init(|| {
            let Metric {
                name, unit, help, ..
            } = self.metric;
            global::meter(SCOPE)
                .f64_gauge(name)
                .with_unit(unit)
                .with_description(help)
                .build()
        });
        gauge.record(value, &labelled(self.names, values));
    }
}

/// A histogram of times.
#[derive(Debug)]
pub struct Histogram<const LABELS: usize> {
    pub(super) metric: Metric,
    names: [&'static str; LABELS],
    made: OnceLock<metrics::Histogram<f64>>,
}

impl<const LABELS: usize> Histogram<LABELS> {
    pub(super) const fn new(
        name: &'static str,
        unit: &'static str,
        labels: &'static [&'static str; LABELS],
        help: &'static str,
    ) -> Self {
        let metric = Metric {
            name,
            shape: InstrumentKind::Histogram,
            unit,
            labels,
            help,
        };
        Self {
            metric,
            names: *labels,
            made: OnceLock::new(),
        }
    }

    /// Records `seconds` under these values of the labels, in their order.
    pub fn record(&self, seconds: f64, values: [StringValue; LABELS]) {
        let histogram = self.made.get_or_init(|| {
            let Metric {
                name, unit, help, ..
            } = self.metric;
            let meter = global::meter(SCOPE);
            let histogram = meter
                .f64_histogram(name)
                .with_unit(unit)
                .with_description(help);
            histogram.with_boundaries(SECONDS.to_vec()).build()
        });
        histogram.record(seconds, &labelled(self.names, values));
    }
}

fn labelled<const LABELS: usize>(
    names: [&'static str; LABELS],
    values: [StringValue; LABELS],
) -> [KeyValue; LABELS] {
    let mut values = values.into_iter();
    // There are as many values as names.
    names.map(|name| KeyValue::new(name, values.next().map_or(Value::from(""), Value::String)))
}
