//! The operator's API over real queues: a file, and a NATS server.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fixture;

mod jobs;
mod jobs_bounded;
mod jobs_changed;
mod jobs_replayed;
mod jobs_taken_over;
mod jobs_webhooks;
mod naming;
mod odd_stores;
