//! Text that somebody else wrote, and times, as pages show them.

use std::time::Duration;

use maud::{Markup, html};
use telemetry::is_unsafe;
pub(crate) use telemetry::{count, count_of};

/// Most characters of a text in a table.
const MAX_CELL: usize = 120;

/// The text with a name in place of each character that would be obeyed or hidden, such as one
/// that turns the direction of what follows. [`meant`] takes it back.
pub(crate) fn shown(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    for (at, letter) in text.char_indices() {
        match is_unsafe(letter) || named_at(&text[at..]).is_some() {
            true => made.push_str(&name_of(letter)),
            false => made.push(letter),
        }
    }
    made
}

/// A sentence in which commands and keys stand between backticks, as the messages of commands have
/// them: a browser shows these as code.
pub(crate) fn with_code(text: &str) -> Markup {
    let parts: Vec<&str> = text.split('`').collect();
    // The last one has no partner: it is a character like others.
    let is_paired = parts.len() % 2 == 1;
    html! {
        @if is_paired {
            @for (at, part) in parts.iter().enumerate() {
                @if at % 2 == 1 { code { (shown(part)) } } @else { (shown(part)) }
            }
        } @else {
            (shown(text))
        }
    }
}

/// The text that was meant by what [`shown`] shows: a ref can be copied from a page into a form.
pub(crate) fn meant(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let (letter, length) = named_at(rest).unwrap_or((next, next.len_utf8()));
        made.push(letter);
        rest = &rest[length..];
    }
    made
}

/// What [`shown`] writes for a character: `[U+202E]`.
fn name_of(letter: char) -> String {
    format!("[U+{:04X}]", u32::from(letter))
}

/// The character whose name the text begins with, and the length of the name. A bracket has one,
/// too: that of a text which looks like a name itself.
fn named_at(text: &str) -> Option<(char, usize)> {
    let (code, _) = text.strip_prefix("[U+")?.split_once(']')?;
    let letter = char::from_u32(u32::from_str_radix(code, 16).ok()?)?;
    let name = name_of(letter);
    let is_name = text.starts_with(&name) && (is_unsafe(letter) || letter == '[');
    is_name.then_some((letter, name.len()))
}

/// The same for a text of several lines.
pub(crate) fn shown_lines(text: &str) -> String {
    let lines = text.split('\n').map(|line| {
        let parts: Vec<_> = line.trim_end_matches('\r').split('\t').map(shown).collect();
        parts.join("\t")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A text for a table: what is too long is cut.
pub(crate) fn cell(text: &str) -> String {
    match text.char_indices().nth(MAX_CELL) {
        Some((end, _)) => format!("{}…", shown(&text[..end])),
        None => shown(text),
    }
}

/// A point in time: UTC, and for machines the same in RFC 3339.
pub(crate) fn time(at: Option<&proto::Timestamp>) -> Markup {
    let Some(at) = at.and_then(grpc::timestamp_of) else {
        return html! { "–" };
    };
    let exact = format!("{at:.3}");
    let words = exact.replace('T', " ").replace('Z', " UTC");
    html! { time datetime=(exact) { (words) } }
}

/// A length of time.
pub(crate) fn length(of: Option<&proto::Duration>) -> String {
    let Some(length) = of.and_then(grpc::duration_of) else {
        return String::new();
    };
    match length {
        _ if length < Duration::from_millis(1) => format!("{} µs", length.as_micros()),
        _ if length < Duration::from_secs(1) => format!("{} ms", length.as_millis()),
        _ => format!("{:.1} s", length.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_backticks_is_code() {
        assert_eq!(
            with_code("a <b>: `jobs show 1` or `x`").into_string(),
            "a &lt;b&gt;: <code>jobs show 1</code> or <code>x</code>"
        );
        assert_eq!(with_code("a ` b").into_string(), "a ` b");
    }

    #[test]
    fn what_a_reader_would_obey_has_a_name() {
        assert_eq!(shown("a\u{1b}[2Jb\u{202e}c"), "a[U+001B][2Jb[U+202E]c");
        assert_eq!(shown("größe 日本 👍"), "größe 日本 👍");
        let odd = "a\u{1b}[2Jb\u{202e}c[U+0041][U+";
        assert_eq!(meant(&shown(odd)), odd);
        let parts = [
            "[", "U+", "001B", "005B", "202E", "]", "+1B", "\u{1b}", "\u{202e}", "x",
        ];
        for number in 0..parts.len().pow(5) {
            let part = |at: u32| parts[number / parts.len().pow(at) % parts.len()];
            let text: String = (0..5).map(part).collect();
            let shown = shown(&text);
            assert_eq!(meant(&shown), text, "{shown}");
            assert!(!shown.chars().any(is_unsafe), "{shown:?}");
        }
        assert_eq!(shown("[U+001B]"), "[U+005B]U+001B]");
        assert_eq!(shown("[U+0041] [x]"), "[U+0041] [x]");
        assert_eq!(shown_lines("a\tb\r\nc\u{7}"), "a\tb\nc[U+0007]");
        let long = cell(&"ö".repeat(10_000));
        assert_eq!(long.chars().count(), MAX_CELL + 1);
    }

    #[test]
    fn a_time_is_utc_for_people_and_exact_for_machines() {
        let at = grpc::timestamp("2026-11-25T08:00:00.1239Z".parse().unwrap());
        let made = time(Some(&at)).into_string();
        assert!(
            made.contains("datetime=\"2026-11-25T08:00:00.123Z\""),
            "{made}"
        );
        assert!(made.contains(">2026-11-25 08:00:00.123 UTC<"), "{made}");
        assert_eq!(time(None).into_string(), "–");
    }
}
