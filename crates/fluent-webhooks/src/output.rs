//! How commands speak to people and to machines.
#![expect(clippy::print_stdout, reason = "the one place that prints")]

use std::fmt;
use std::io::{IsTerminal, Write};

use std::error::Error;

use anyhow::{anyhow, bail};
use comfy_table::{ContentArrangement, Table, presets};
use queue::Position;
use serde::Serialize;
use telemetry::Chain;
use tonic::{Code, Response, Status};

use crate::cli::Common;

/// Prints one line.
pub(crate) fn line(text: impl AsRef<str>) {
    print(format_args!("{}", text.as_ref()));
}

/// A reader that has seen enough (`| head`) ends the command, quietly.
#[expect(clippy::exit, reason = "nobody is left to print for")]
fn print(text: fmt::Arguments<'_>) {
    if writeln!(anstream::stdout(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Writes bytes as they are, for `verify --body -` and the like.
pub(crate) fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Prints pretty JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    print(format_args!("{}", serde_json::to_string_pretty(value)?));
    Ok(())
}

/// A position of the contract, for JSON: `1234`, or `3:1234` in shard 3. A number that can be
/// none is more than any sequence, and shown as it is.
pub(crate) fn position(packed: u64) -> String {
    Position::from_packed(packed).map_or_else(|_| packed.to_string(), |position| position.to_string())
}

/// Prints a table, or `nothing` where it has no rows.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, nothing: &str) {
    if rows.is_empty() {
        return line(nothing);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.to_vec());
    table.add_rows(rows);
    print(format_args!("{table}"));
}

/// Asks before something that touches many. Without a terminal, `--yes` must
/// have been given.
pub(crate) fn confirm(question: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("{question} Say `--yes` to do it without being asked");
    }
    print!("{question} [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim().eq_ignore_ascii_case("y") { Ok(()) } else { bail!("nothing was done") }
}

/// Says how many were dealt with.
pub(crate) fn done(common: &Common, what: &str, count: usize) -> anyhow::Result<()> {
    if common.json {
        return json(&serde_json::json!({what: count}));
    }
    line(format!("{count} {what}"));
    Ok(())
}

/// What a server answered, or why it did not.
pub(crate) fn answered<T>(answer: Result<Response<T>, Status>) -> anyhow::Result<T> {
    answer.map(Response::into_inner).map_err(|status| anyhow!(said(&status)))
}

/// A status in words.
pub(crate) fn said(status: &Status) -> String {
    let message = Chain(status).to_string();
    let message = if status.message().is_empty() { message } else { status.message().to_owned() };
    match status.code() {
        Code::Unauthenticated => format!("{message}: see --token"),
        Code::PermissionDenied => format!("not allowed: {message}"),
        Code::Unavailable => {
            let cause = status.source().map(|cause| format!(": {}", Chain(cause))).unwrap_or_default();
            format!("{message}{cause}")
        }
        _ => message,
    }
}

/// Prints JSON on one line.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    print(format_args!("{}", serde_json::to_string(value)?));
    Ok(())
}

/// What others wrote, without what a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// A text, or nothing where it is empty.
pub(crate) fn or_null(text: &str) -> serde_json::Value {
    if text.is_empty() { serde_json::Value::Null } else { text.into() }
}

/// A time for people: UTC, to the millisecond.
pub(crate) fn time(at: event_model::Timestamp) -> String {
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_positions_as_strings() {
        assert_eq!(position(1234), "1234");
        assert_eq!(position(3 << 56 | 1234), "3:1234");
        assert_eq!(position(u64::MAX), u64::MAX.to_string(), "another server's, and no position");
    }
}
