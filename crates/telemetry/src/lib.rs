//! Logs, traces and metrics: one vocabulary for every stage, and the only crate
//! that knows OpenTelemetry.
//!
//! ```text
//! a stage ─▶ Span::begin ── end ─▶ kept? ─▶ bounded queue ─▶ OTLP
//!        └─▶ metrics::ACCEPTED.add ─▶ OTLP, and GET /metrics
//! ```
//!
//! Nothing here waits for a collector: what it does not take in time is dropped and counted.
//! Spans and metrics never have a body, an attribute's value or a person's data.
//!
//! Start reading at [`Span`] and [`metrics`].

mod chain;
mod logs;
mod plain;

mod calls;
mod sampling;
mod span;

mod error;
mod export;
mod start;

pub mod alerts;
pub mod metrics;

pub use opentelemetry::{KeyValue as Attribute, StringValue as Label};

pub use crate::calls::calls;
pub use crate::chain::ErrorChain;
pub use crate::error::StartError;
pub use crate::export::{Collector, Protocol};
pub use crate::logs::{Format, Logs, start_logs};
pub use crate::plain::{count, count_of, is_unsafe, plain};
pub use crate::sampling::Sampling;
pub use crate::span::{Kind, Parent, Span, SpanStatus};
pub use crate::start::{Options, TelemetryHandle, start};
