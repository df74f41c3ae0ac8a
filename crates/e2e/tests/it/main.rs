//! Whole-pipeline tests: the real binary as a process, real sockets, real
//! keys, real kills.
//!
//! One test binary, so that it links once. Each test has a folder, ports and
//! processes of its own; none share state.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pipeline;

pub(crate) use e2e::{SANDBOX, ledger, sink};

mod backup;
mod cluster;
mod commands;
mod console;
mod crashing;
mod delivery;
mod descriptors;
mod dying;
mod faults;
mod files;
mod fluent;
mod gateway;
mod grpc;
mod how_to;
mod http;
mod in_a_browser;
mod json;
mod local_commands;
mod matching;
mod memory;
mod observed;
mod one_event;
mod output;
mod poison;
mod policies;
mod privacy;
mod proxies;
mod same_id;
mod samples;
mod send_test;
mod settings;
mod settings_secrets;
mod status;
mod stopping;
mod tls;
