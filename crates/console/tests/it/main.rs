//! The console on real sockets, over a real queue in a file.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod fixture;

mod access;
mod bounds;
mod changes;
mod inert;
mod jobs;
mod live;
mod pages;
mod sessions;
mod story;
mod tls;
