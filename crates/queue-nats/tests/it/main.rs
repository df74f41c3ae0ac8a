//! The queue against real servers.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod admitting;
mod batches;
mod cluster;
mod conformance;
mod forgetting;
mod full;
mod indexed;
mod joining;
mod marks;
mod probing;
mod proxy;
mod received;
mod waiting;
