//! The pages, and the parts that several of them have.

pub(crate) mod audit;
pub(crate) mod deliveries;
pub(crate) mod event;
pub(crate) mod events;
pub(crate) mod export;
pub(crate) mod jobs;
pub(crate) mod letter_changes;
pub(crate) mod letter_groups;
pub(crate) mod letters;
pub(crate) mod login;
pub(crate) mod overview;
pub(crate) mod quarantine;
pub(crate) mod refused;
pub(crate) mod routes;
pub(crate) mod search;
pub(crate) mod story;
mod timeline;

use std::fmt::Display;

use event_model::Timestamp;
use maud::{Markup, html};
use proto::v1;

use crate::command_line::command;
use crate::params::{Params, link, segment};
use crate::reply::PageError;
use crate::text::{count, count_of, shown, with_code};

/// Things on one page of a list.
const PAGE_SIZE: u32 = 50;

/// Most bytes of a body that a page shows. The command shows all of it.
const MAX_BODY: usize = 256 << 10;

/// The place if it is a page of ours, and otherwise the first page.
pub(crate) fn local(place: &str) -> &str {
    let is_plain = place
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    match is_plain && place.starts_with('/') && !place.starts_with("//") {
        true => place,
        false => "/",
    }
}

/// What went wrong, in words.
pub(crate) fn problem(error: &PageError) -> Markup {
    html! {
        div class="box bad" role="alert" { p { (sentence(&shown(&error.words))) } }
        p { a href="/" { "To the overview" } }
    }
}

fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string());
    let end = if words.ends_with(['.', '?', '!']) {
        ""
    } else {
        "."
    };
    format!("{}{}{end}", first.unwrap_or_default(), letters.as_str())
}

/// A table. Each cell is named after its column, for narrow screens.
fn table(caption: &str, head: &[&str], rows: &[Vec<Markup>]) -> Markup {
    let body = html! { @for cells in rows { (table_row(head, "", cells)) } };
    table_with(caption, head, &body)
}

/// The same with rows that are made already.
fn table_with(caption: &str, head: &[&str], rows: &Markup) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead { tr { @for name in head { (column_head(name)) } } }
                tbody { (rows) }
            }
        }
    }
}

/// The head of a column. One with buttons has a name for who does not see them.
fn column_head(name: &str) -> Markup {
    html! {
        th scope="col" {
            @if name.is_empty() { span class="unseen" { "what may be done" } } @else { (name) }
        }
    }
}

/// A row, with a key by which a script knows it if it has one.
fn table_row(head: &[&str], key: &str, cells: &[Markup]) -> Markup {
    let key = Some(key).filter(|key| !key.is_empty());
    html! { tr data-key=[key] { @for (name, cell) in head.iter().zip(cells) { (column(name, cell)) } } }
}

fn column(name: &str, cell: &Markup) -> Markup {
    html! { td data-label=[Some(name).filter(|name| !name.is_empty())] { (cell) } }
}

/// A part of a page that changes while somebody looks, under its name.
fn live_part(name: &str, part: &Markup) -> Markup {
    html! { div data-live=(name) { (part) } }
}

/// Where a script shows that a page is live: where it asks, and from which time or place on.
fn live_bar(url: &str, from: impl Display, first_page: &str) -> Markup {
    html! { div class="live" data-live-url=(url) data-from=(from.to_string()) data-first=(first_page) hidden {} }
}

/// What is said where a list is empty: what would be here, and how it gets here.
fn nothing(what: &str, how: &str) -> Markup {
    html! { div class="box" { p { strong { (what) } } p { (with_code(how)) } } }
}

/// Says that events of this page were left out, if that is so.
fn unreadable(number: u32) -> Markup {
    html! {
        @if number > 0 {
            div class="box bad" {
                p { (count_of(number.into(), "event is", "events are")) " stored and can't be read, since the content is damaged. The log has a line for each that a route came to." }
            }
        }
    }
}

/// The command that gives the same.
fn same_by(words: &[&str], options: &[(&str, &str)]) -> Markup {
    html! {
        @if let Some(line) = command(words, options) {
            p { "The same in a shell: " code class="command" { (line) } }
        }
    }
}

/// A field of a filter: its name in the address, its label, and an example.
type FilterField = (&'static str, &'static str, &'static str);

/// A form whose fields are the filter, which is in the address.
fn filter_form(path: &str, fields: &[FilterField], params: &Params) -> Markup {
    html! {
        form class="filter" action=(path) {
            @for (name, label, example) in fields {
                label {
                    (label)
                    input name=(name) value=(shown(params.get(name))) placeholder=(example) maxlength="1024" autocomplete="off" spellcheck="false";
                }
            }
            button { "Filter" }
            @if fields.iter().any(|(name, ..)| !params.get(name).is_empty()) {
                a href=(path) { "Without filter" }
            }
        }
    }
}

/// Links to the list as files, with its filter.
fn as_files(list: &str, fields: &[(&'static str, String)]) -> Markup {
    let to = |format: &str| link(&format!("/export/{list}.{format}"), fields);
    let extent = match list {
        "audit" => "the newest 1,000 rows",
        _ => "up to 10,000 rows",
    };
    html! {
        p class="soft" {
            "As a file of " (extent) ": "
            a href=(to("csv")) { "CSV" } ", " a href=(to("jsonl")) { "JSON Lines" }
        }
    }
}

/// The link to the next page of a list with its filter.
fn next_page(
    path: &str,
    kept: &[&'static str],
    params: &Params,
    token: &str,
    words: &str,
) -> Markup {
    let mut fields = params.set(kept);
    fields.push(("page", token.to_owned()));
    html! {
        @if !token.is_empty() {
            p { a rel="next" href=(link(path, &fields)) { (words) } }
        }
    }
}

/// A time of a filter: `2h` for two hours ago, or RFC 3339.
fn time_of(
    params: &Params,
    name: &str,
    now: Timestamp,
) -> Result<Option<proto::Timestamp>, PageError> {
    let text = params.get(name);
    if text.is_empty() {
        return Ok(None);
    }
    let ago = humantime::parse_duration(text).ok();
    let at = match ago {
        Some(ago) => now.checked_sub(ago).ok(),
        None => text.parse().ok(),
    };
    let expected = || {
        PageError::bad(format!(
            "{name}: expected a time such as 2026-11-25T08:00:00Z, or 2h for two hours ago"
        ))
    };
    at.map(|at| Some(grpc::timestamp(at))).ok_or_else(expected)
}

/// The fields with their times as points in time: `2h` is another one whenever it is read.
///
/// # Errors
/// If a time can't be read.
fn with_points(params: &Params, now: Timestamp) -> Result<Params, PageError> {
    let mut fixed = params.clone();
    for name in ["since", "until"] {
        let at = time_of(params, name, now)?;
        if let Some(at) = at.as_ref().and_then(grpc::timestamp_of) {
            fixed.set_to(name, &at.to_string());
        }
    }
    Ok(fixed)
}

/// The numbers that a form selects.
///
/// # Errors
/// If there is none, or one is no number.
fn selected(params: &Params) -> Result<Vec<u64>, PageError> {
    let ids = params.all("id").map(str::parse);
    let ids: Result<Vec<u64>, _> = ids.collect();
    match ids {
        Ok(ids) if !ids.is_empty() => Ok(ids),
        Ok(_) => Err(PageError::bad(
            "Nothing was chosen: mark one or more in the list.",
        )),
        Err(_) => Err(PageError::bad("id: expected a number")),
    }
}

/// A body as text.
fn body_text(bytes: &[u8], command: Markup) -> Markup {
    let cut = bytes.len().min(MAX_BODY);
    let text = String::from_utf8_lossy(&bytes[..cut]);
    html! {
        p class="soft" { (count(bytes.len() as u64, "byte")) ", exactly as they were signed. That you looked is in the audit log." }
        pre tabindex="0" aria-label="The body" { (crate::text::shown_lines(&text)) }
        @if cut < bytes.len() {
            p { "Only the first " (MAX_BODY / 1024) " KiB are shown." }
        }
        (command)
    }
}

/// How a change of many ended.
fn ended(counts: &v1::BulkProgress, what: &str, back: &str, is_whole: bool) -> Markup {
    let is_well = counts.failed == 0 && is_whole;
    html! {
        div class=(if is_well { "box good" } else { "box wait" }) role="status" {
            p { strong { (counts.succeeded) " " (what) } }
            @if counts.skipped > 0 { p { (counts.skipped) " left as they were." } }
            @if counts.failed > 0 {
                p { (counts.failed) " could not be, and stay: " (shown(&counts.first_error)) }
            }
            @if !is_whole {
                p { "It was ended after a minute. Do it again for the rest, or use the command, which has no end." }
            }
        }
        p { a href=(back) { "Back to the list" } }
    }
}

/// A link to an event.
fn event_link(id: &str) -> Markup {
    let digits = id.get(..8).unwrap_or(id);
    html! { a href=(format!("/events/{}", segment(id))) { (shown(digits)) } }
}

/// A link to what an entity's story is: the search for its ref.
fn entity_link(entity: &str) -> Markup {
    let reference = entity
        .split_once('/')
        .map_or(entity, |(_, reference)| reference);
    reference_link(entity, reference)
}

/// The same where the ref is known.
fn reference_link(entity: &str, reference: &str) -> Markup {
    html! {
        @if entity.is_empty() { "–" } @else {
            a href=(link("/search", &[("q", reference)])) { (crate::text::cell(entity)) }
        }
    }
}

/// A link to the list with one filter.
fn list_link(path: &str, field: &str, value: &str) -> Markup {
    html! { a href=(link(path, &[(field, value)])) { (crate::text::cell(value)) } }
}

/// The state of an attempt or a delivery, in its colour.
fn state(name: &str) -> Markup {
    let class = match name {
        "done" | "running" | "well" => "state good",
        "waiting" | "in-flight" | "transient" | "timed-out" | "returned" | "not-ready"
        | "paused" => "state wait",
        "dead" | "permanent" | "panicked" | "died" | "gone" | "failed" => "state bad",
        _ => "state soft",
    };
    html! { span class=(class) { (shown(name)) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_one_is_still_here() {
        assert_eq!(local("/events/1?a=b&c=%20"), "/events/1?a=b&c=%20");
        let elsewhere = [
            "",
            "x",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "javascript:1",
            "/a b",
            "/a\r\nx: y",
            "\\\\evil",
            "/\t/evil.example",
        ];
        for place in elsewhere {
            assert_eq!(local(place), "/", "{place:?}");
        }
    }

    #[test]
    fn a_time_is_a_point_or_a_length_before_now() {
        let now: Timestamp = "2026-11-25T08:00:00Z".parse().unwrap();
        let at = |text: &str| {
            let params = Params::parse(
                link("", &[("since", text)])
                    .trim_start_matches('?')
                    .as_bytes(),
            );
            time_of(&params, "since", now).map(|at| at.and_then(|at| grpc::timestamp_of(&at)))
        };
        assert_eq!(at("").unwrap(), None);
        assert_eq!(
            at("2h").unwrap(),
            Some("2026-11-25T06:00:00Z".parse().unwrap())
        );
        assert_eq!(
            at("2026-11-24T00:00:00Z").unwrap(),
            Some("2026-11-24T00:00:00Z".parse().unwrap())
        );
        assert!(at("yesterday").is_err());
        assert!(at("900000years").is_err());
    }
}
