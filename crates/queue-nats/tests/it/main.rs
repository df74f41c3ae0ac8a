//! Tests of the queue with real servers.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod admitting;
mod announcing;
mod batches;
mod changed_match;
mod clocks;
mod cluster;
mod conformance;
mod deaths;
mod facts;
mod forgetting;
mod full;
mod held;
mod in_hand;
mod indexed;
mod joining;
mod log_lines;
mod lost_positions;
mod probing;
mod proxy;
mod publishing;
mod reading;
mod received;
mod room;
mod shares;
mod two_versions;
mod unwritten;
mod verifying;
mod waiting;
mod windows;
mod written_once;
