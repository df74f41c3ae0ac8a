//! The log: one line for each record, to standard error.

use std::io::{self, IsTerminal};

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::prelude::*;

/// Lines that may wait for a slow reader of our output. Beyond it lines are dropped, since an
/// event must never wait for the log.
const BUFFERED_LINES: usize = 16 * 1024;

/// The NATS client repeats our own records, and at lower levels shows what it carries. The
/// exporters' failures are logged by us, once, and counted.
const QUIET: &str = "async_nats=warn,opentelemetry=off,opentelemetry_sdk=off,opentelemetry-otlp=off,opentelemetry_otlp=off,opentelemetry-http=off,opentelemetry_prometheus=off";

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people, coloured on a terminal.
    Readable,
    /// One JSON object a line.
    Json,
}

/// The log as long as it is written. Dropping it writes the buffered lines.
#[derive(Debug)]
#[must_use = "dropping it ends the log"]
pub struct Logs(#[expect(dead_code, reason = "it is there to be dropped")] WorkerGuard);

/// Starts the log to standard error. `filter` has the syntax of `RUST_LOG`. A second call has no
/// effect.
pub fn start_logs(format: Format, filter: &str) -> Logs {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(BUFFERED_LINES)
        .finish(io::stderr());
    let filter =
        EnvFilter::try_new(format!("{QUIET},{filter}")).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = match format {
        Format::Json => layer()
            .json()
            .flatten_event(true)
            .with_writer(writer)
            .boxed(),
        Format::Readable => layer()
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .with_writer(writer)
            .boxed(),
    };
    // A second call, as in tests, keeps the first log.
    let _ = tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .try_init();
    Logs(guard)
}
