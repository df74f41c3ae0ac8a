//! A spool before a real server that goes away, forgets, and comes back.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod away;
mod clock;
mod conformance;
mod forgetful;
mod full;
mod overflow;
mod world;
