//! A dispatcher, and the same dispatcher behind a real socket.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod access;
mod answers;
mod goodbyes;
mod handler;
mod replicas;
mod there_and_back;
