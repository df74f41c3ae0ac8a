//! The output of commands, for people and for programs.
#![expect(clippy::print_stdout, reason = "the one place that prints")]

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::{anyhow, bail};
use comfy_table::{ContentArrangement, Table, presets};
use event_model::Timestamp;
use process::WrongArgument;
use proto::v1;
use serde::Serialize;
pub(crate) use telemetry::plain;
use telemetry::{ErrorChain, is_unsafe};
use tonic::{Code, Response, Status};

use crate::cli::CommonArgs;
use crate::json::BulkResult;

/// Prints one line. A terminal obeys nothing in it but our colours.
pub(crate) fn line(text: impl AsRef<str>) {
    print(format_args!("{}", shown(text.as_ref())));
}

/// Says to a person that older webhooks were not looked at, and how to look on.
pub(crate) fn older(common: &CommonArgs, before: &str) {
    if !common.json && !before.is_empty() {
        note(&format!(
            "those before number {before} were not looked at, or are not shown: `--before {before}` goes on there"
        ));
    }
}

/// The colours and weights that we use, by their terminal codes. None of them hides text.
const STYLES: [&str; 11] = [
    "0", "1", "2", "22", "31", "32", "33", "34", "35", "36", "39",
];

/// The text without characters that a terminal would obey or hide, except for line breaks and our
/// own colours: what is shown may contain what anybody wrote.
fn shown(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        if let Some((style, behind)) = styled(rest) {
            made.push_str(style);
            rest = behind;
            continue;
        }
        match letter {
            '\n' | '\t' => made.push(letter),
            _ => made.push_str(&plain(letter.encode_utf8(&mut [0; 4]))),
        }
        rest = &rest[letter.len_utf8()..];
    }
    made
}

/// One of our styles at the beginning of the text, and the rest of the text.
fn styled(text: &str) -> Option<(&str, &str)> {
    let end = text.strip_prefix("\u{1b}[")?.find('m')? + 2;
    STYLES
        .contains(&&text[2..end])
        .then(|| text.split_at(end + 1))
}

/// Prints to standard output.
fn print(text: fmt::Arguments<'_>) {
    let mut out = anstream::stdout();
    ended_if_unwritten(writeln!(out, "{text}").and_then(|()| out.flush()));
}

/// Ends the command if its output could not be written: without a message if its reader has seen
/// enough (`| head`), with an error otherwise, since the output may be missing from a file.
#[expect(clippy::exit, reason = "nobody is left to print for")]
fn ended_if_unwritten(written: io::Result<()>) {
    let Err(error) = written else {
        return;
    };
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    let error = anyhow!("writing to standard output: {error}");
    let _ = process::code(Err(error));
    std::process::exit(process::FAILED.into());
}

/// Writes bytes as they are, for `verify --body -` and similar uses.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    ended_if_unwritten(out.write_all(bytes).and_then(|()| out.flush()));
}

/// Prints pretty JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    print(format_args!(
        "{}",
        escaped(&serde_json::to_string_pretty(value)?)
    ));
    Ok(())
}

/// JSON in which a terminal obeys nothing. Unsafe characters are only within strings, where their
/// escapes mean the same.
fn escaped(json: &str) -> String {
    let mut made = String::with_capacity(json.len());
    for letter in json.chars() {
        match is_unsafe(letter) && letter != '\n' {
            true => letter.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
                made.push_str(&format!("\\u{unit:04x}"));
            }),
            false => made.push(letter),
        }
    }
    made
}

/// The least width of tables: below it columns have a few characters each.
const NARROWEST: u16 = 40;

/// Most characters in a cell of a table. A ref may have two million; `--json` has all of it.
const WIDEST_CELL: usize = 200;

/// A cell of a table on one line, since a second line could look like a row, and cut to a
/// bearable width.
fn cell(text: &str) -> String {
    let text = text.replace(['\n', '\t'], " ");
    match text.char_indices().nth(WIDEST_CELL) {
        Some((end, _)) => shown(&format!("{}…", &text[..end])),
        None => shown(&text),
    }
}

/// The width of tables: that of the terminal, or what `COLUMNS` says. Without a terminal there is
/// none: what reads the output wants each row on one line.
fn width() -> Option<u16> {
    let of_terminal = rustix::termios::tcgetwinsize(io::stdout())
        .ok()
        .map(|size| size.ws_col);
    let columns = std::env::var_os("COLUMNS");
    let asked = columns.and_then(|columns| columns.to_str()?.parse().ok());
    asked
        .or(of_terminal)
        .filter(|width| *width > 0)
        .map(|width: u16| width.max(NARROWEST))
}

/// Characters of an event's id in a table on a terminal: enough to name it in a command.
const SHORT_ID: usize = 12;

/// An event's id in a table: whole where no terminal is too narrow for it.
pub(crate) fn event_id(id: &str) -> String {
    let is_short = width().is_some_and(|width| width < WIDE);
    id.chars()
        .take(if is_short { SHORT_ID } else { usize::MAX })
        .collect()
}

/// The width from which on an event's id is shown whole.
const WIDE: u16 = 240;

/// Prints a table, or `nothing` if it has no rows. On a terminal, a text that is wider than its
/// column goes on in the next line.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, nothing: &str) {
    if rows.is_empty() {
        return line(nothing);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match width() {
        Some(width) => table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    table.set_header(header.to_vec());
    table.add_rows(rows.iter().map(|row| row.iter().map(|text| cell(text))));
    print(format_args!("{table}"));
}

/// Prints a name and its text on each line; what is empty is left out.
pub(crate) fn fields(fields: &[(&str, String)]) {
    for (name, text) in fields.iter().filter(|(_, text)| !text.is_empty()) {
        line(format!("{name:<13} {}", plain(text)));
    }
}

/// Prints one line to standard error, beside what the command prints.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "note: {}", shown(text));
}

/// Asks before a change to many items: `what`, without a question mark, and the place at which
/// it would be done.
///
/// # Errors
/// If the answer is not yes, or there is no terminal and `--yes` was not given.
pub(crate) fn confirm(what: &str, place: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    let question = shown(&format!("{what}, {place}?"));
    if !io::stdin().is_terminal() {
        bail!("{question} Say `--yes` to do it without being asked");
    }
    let answer = ask(&format!("{question} [y/N]"))?;
    if answer.trim().eq_ignore_ascii_case("y") {
        Ok(())
    } else {
        bail!("nothing was done")
    }
}

/// Asks, and returns the line that is typed.
pub(crate) fn ask(question: &str) -> anyhow::Result<String> {
    print!("{} ", shown(question));
    io::stdout().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer)
}

/// Prints that one item was changed, and where.
pub(crate) fn done(common: &CommonArgs, action: &str, place: &str) -> anyhow::Result<()> {
    if common.json {
        let one = v1::BulkProgress {
            succeeded: 1,
            total: 1,
            ..v1::BulkProgress::default()
        };
        return json(&BulkResult::new(action, &one));
    }
    line(format!("1 {action}, {place}"));
    Ok(())
}

/// The message of a server's answer.
///
/// # Errors
/// The status in words.
pub(crate) fn answered<T>(answer: Result<Response<T>, Status>) -> anyhow::Result<T> {
    answer
        .map(Response::into_inner)
        .map_err(|status| match status.code() {
            Code::InvalidArgument => WrongArgument(said(&status)).into(),
            _ => anyhow!(said(&status)),
        })
}

/// A status in words.
pub(crate) fn said(status: &Status) -> String {
    let message = ErrorChain(status).to_string();
    let message = if status.message().is_empty() {
        message
    } else {
        status.message().to_owned()
    };
    match status.code() {
        Code::Unauthenticated => format!("{message}: see --token"),
        Code::PermissionDenied => format!("not allowed: {message}"),
        Code::Unavailable => {
            let cause = status
                .source()
                .map(|cause| format!(": {}", ErrorChain(cause)))
                .unwrap_or_default();
            format!("{message}{cause}")
        }
        _ => message,
    }
}

/// Prints JSON on one line.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    print(format_args!("{}", escaped(&serde_json::to_string(value)?)));
    Ok(())
}

/// A time for people: UTC, to the millisecond.
pub(crate) fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// A time for people in a table: UTC, and how long ago it was.
pub(crate) fn time_and_age(at: Timestamp, now: Timestamp) -> String {
    let past = now.duration_since(at);
    match Duration::try_from(past) {
        Ok(past) => format!("{at:.0} ({} ago)", in_words(past)),
        Err(_) => format!("{at:.0}"),
    }
}

/// A length of time in its largest unit.
pub(crate) fn in_words(length: Duration) -> String {
    match length.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds @ 3600..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use owo_colors::OwoColorize;

    use super::*;

    #[test]
    fn a_cell_is_one_line_of_a_bounded_width() {
        assert_eq!(cell("a\nb\tc"), "a b c");
        assert_eq!(cell(&"ö".repeat(WIDEST_CELL)), "ö".repeat(WIDEST_CELL));
        let long = cell(&"ö".repeat(2_000_000));
        assert_eq!(long.chars().count(), WIDEST_CELL + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn a_time_in_a_table_says_how_long_ago_it_was() {
        let at: Timestamp = "2026-11-29T08:00:00.123Z".parse().unwrap();
        let age = |seconds| time_and_age(at, at + Duration::from_secs(seconds));
        assert_eq!(age(59), "2026-11-29T08:00:00Z (59 s ago)");
        assert_eq!(age(180), "2026-11-29T08:00:00Z (3 min ago)");
        assert_eq!(age(47 * 3600), "2026-11-29T08:00:00Z (47 h ago)");
        assert_eq!(age(72 * 3600), "2026-11-29T08:00:00Z (3 days ago)");
        let before = at - Duration::from_secs(1);
        assert_eq!(time_and_age(at, before), "2026-11-29T08:00:00Z");
    }

    #[test]
    fn a_terminal_obeys_nothing_that_is_shown_but_our_colours() {
        let title = "\u{1b}]0;pwn\u{7}\u{1b}[2J\u{1b}[8mhidden\u{9b}m\u{7f}\r";
        let made = shown(title);
        assert!(!made.chars().any(is_unsafe), "{made:?}");
        for mark in [
            "\u{202e}",
            "\u{2066}",
            "\u{200b}",
            "\u{200f}",
            "\u{2028}",
            "\u{feff}",
            "\u{e0041}",
        ] {
            assert_eq!(shown(&format!("a{mark}b")), "a\u{fffd}b", "{mark:?}");
        }
        let ours = format!("{} {}\nnext", "paused".yellow().bold(), "well".green());
        assert_eq!(shown(&ours), ours);
        assert_eq!(shown("größe 日本 e\u{301} 👍"), "größe 日本 e\u{301} 👍");
        assert_eq!(shown("\u{1b}["), "\u{fffd}[");
    }

    #[test]
    fn json_says_the_same_with_nothing_in_it_that_a_terminal_obeys() {
        let value = serde_json::json!({ "name": "a\u{9b}2J\u{202e}\u{e0041}\u{7f}ö" });
        let made = escaped(&serde_json::to_string_pretty(&value).unwrap());
        assert!(
            !made
                .chars()
                .any(|letter| letter != '\n' && is_unsafe(letter)),
            "{made:?}"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&made).unwrap(),
            value
        );
    }
}
