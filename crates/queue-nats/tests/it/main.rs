//! The queue against real servers.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod batches;
mod changed_match;
mod clocks;
mod cluster;
mod conformance;
mod deaths;
mod full;
mod indexed;
mod joining;
mod lost_positions;
mod probing;
mod proxy;
mod publishing;
mod reading;
mod room;
mod waiting;
