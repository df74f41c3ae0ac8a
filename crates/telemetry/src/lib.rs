//! Logs and trace context: one vocabulary for every stage.
//!
//! Today the structured log, the trace ids in it, and the `traceparent` that
//! travels with an event. This is the door through which OpenTelemetry will
//! come; no other crate will know of it.
//!
//! Never a body, an attribute's value or a person's data in any of it.

mod chain;
mod logs;

use event_model::TraceParent;

pub use crate::chain::Chain;
pub use crate::logs::{Format, Logs, start_logs};

/// Begins the trace of one webhook: what causes it is the request.
pub fn begin_trace() -> TraceParent {
    TraceParent::new(fastrand::u128(1..), fastrand::u64(1..), true).unwrap_or_else(begin_trace)
}

/// Continues an event's trace with the span of one attempt.
pub fn continue_trace(trace: TraceParent) -> TraceParent {
    trace.child(fastrand::u64(1..))
}
