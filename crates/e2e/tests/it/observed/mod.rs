//! What others see of a running pipeline: traces at a real OTLP receiver, metrics,
//! and what neither may cost.

mod collector;
mod dashboard;
mod metrics;
mod one_trace;
mod sampling;

use std::net::SocketAddr;

use e2e::collector::CollectedSpans;

/// Everything is recorded, and goes there.
pub(crate) fn recorded_at(collector: SocketAddr) -> String {
    sampled_at(collector, "sample-ratio: 1")
}

/// These settings of traces, and metrics every second.
pub(crate) fn sampled_at(collector: SocketAddr, traces: &str) -> String {
    format!(
        "  telemetry: {{ otlp: {{ endpoint: \"http://{collector}\", metrics-interval: 1s }}, traces: {{ {traces} }} }}\n"
    )
}

/// The only one of this name.
#[track_caller]
pub(crate) fn one<'s>(spans: &'s [CollectedSpans], name: &str) -> &'s CollectedSpans {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name} in {spans:#?}");
    found[0]
}
