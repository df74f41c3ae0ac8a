//! Metrics. Every one has its place in the `vocabulary`, and in `docs/metrics.md`, which is
//! generated from it.
//!
//! Labels have values from settings or from a fixed list, so nobody outside can
//! create a series.

mod instrument;
mod scrape;
mod table;
mod vocabulary;

pub use self::instrument::{Counter, Gauge, Histogram, InstrumentKind, Metric};
pub use self::scrape::{CONTENT_TYPE, Scrape};
pub use self::table::{first_look, table};
pub use self::vocabulary::*;
