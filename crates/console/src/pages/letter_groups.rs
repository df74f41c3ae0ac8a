//! Dead letters by what they have in common: route, reason, and what the destination answered.

use std::collections::BTreeMap;
use std::time::Duration;

use maud::{Markup, html};
use proto::v1;
use tokio::time::Instant;

use super::letters::{NAMES, View, filter_of};
use super::{filter_form, nothing, table, with_points};
use crate::params::{Params, link};
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{cell, count, shown, time};

/// Most letters that are looked at for one page, and the longest time for it.
const MAX_LOOKED_AT: u64 = 10_000;
const LOOK_FOR: Duration = Duration::from_secs(5);

/// Letters that are asked for at once.
const TOGETHER: u32 = 1000;

/// Most groups that are told apart. An answer may have any number.
const MAX_GROUPS: usize = 200;

/// What letters of one group have in common.
type GroupKey = (String, String, String);

#[derive(Debug)]
struct Group {
    count: u64,
    /// The last of them that was looked at: the newest.
    newest: v1::DeadLetter,
}

pub(crate) async fn show(mut visit: Visit) -> Result<Reply, PageError> {
    let (groups, is_whole) = groups_of(&mut visit).await?;
    let params = &visit.params;
    let list = link(View::Dead.path(), &params.set(&NAMES));
    let main = html! {
        (filter_form("/dead-letters/groups", &View::Dead.fields(), params))
        @if !is_whole {
            p { "Not all letters were looked at, so that this page comes soon: the numbers are " strong { "at least" } " so high." }
        }
        @if groups.is_empty() {
            (nothing("No dead letter that this filter leaves", "Letters that died on the same route, for the same reason and by the same answer have one line here."))
        } @else {
            (table_of(&groups, is_whole, &with_points(params, visit.now)?))
            p { "A number leads to the letters of its route and reason that this filter leaves, whatever the answer." }
        }
        p { a href=(list) { "Each letter" } }
    };
    Ok(Reply::Page("Dead letters by cause", main))
}

async fn groups_of(visit: &mut Visit) -> Result<(BTreeMap<GroupKey, Group>, bool), PageError> {
    let filter = filter_of(View::Dead, visit)?;
    let deadline = Instant::now() + LOOK_FOR;
    let mut groups: BTreeMap<GroupKey, Group> = BTreeMap::new();
    let mut page_token = String::new();
    let mut looked_at = 0;
    loop {
        let request = v1::ListDeadLettersRequest {
            filter: Some(filter.clone()),
            page_size: TOGETHER,
            page_token,
        };
        let page = visit.api.list_dead_letters(request).await?.into_inner();
        looked_at += page.dead_letters.len() as u64;
        for letter in page.dead_letters {
            let key = (
                letter.route.clone(),
                letter.reason.clone(),
                answer_of(&letter.detail),
            );
            if groups.len() >= MAX_GROUPS && !groups.contains_key(&key) {
                return Ok((groups, false));
            }
            let group = groups.entry(key).or_insert_with(|| Group {
                count: 0,
                newest: v1::DeadLetter::default(),
            });
            group.count += 1;
            group.newest = letter;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok((groups, true));
        }
        if looked_at >= MAX_LOOKED_AT || Instant::now() >= deadline {
            return Ok((groups, false));
        }
    }
}

/// The number that a destination answered with, if the words begin with one: `422 no such shop`.
fn answer_of(detail: &str) -> String {
    let detail = detail.strip_prefix("HTTP ").unwrap_or(detail);
    let digits: String = detail
        .chars()
        .take_while(char::is_ascii_digit)
        .take(4)
        .collect();
    match digits.len() {
        3 => digits,
        _ => String::new(),
    }
}

/// The filter of the page beside route and reason, which each line says itself.
const BESIDE: [&str; 5] = ["event", "account", "ref", "since", "until"];

fn table_of(groups: &BTreeMap<GroupKey, Group>, is_whole: bool, points: &Params) -> Markup {
    let mut groups: Vec<_> = groups.iter().collect();
    groups.sort_by_key(|(_, group)| std::cmp::Reverse(group.count));
    let rows = groups.iter().map(|((route, reason, answer), group)| {
        let mut of_these = points.set(&BESIDE);
        of_these.extend([("route", route.clone()), ("reason", reason.clone())]);
        let newest = &group.newest;
        vec![
            html! { a href=(link("/dead-letters", &of_these)) { @if !is_whole { "at least " } (group.count) } },
            html! { (shown(route)) },
            html! { (shown(reason)) },
            html! { @if answer.is_empty() { "–" } @else { (answer) } },
            time(newest.created_at.as_ref()),
            html! { a href=(format!("/dead-letters/{}", newest.id)) { (newest.id) } ": " (cell(&newest.detail)) },
        ]
    });
    let rows: Vec<_> = rows.collect();
    let head = [
        "letters",
        "route",
        "reason",
        "answer",
        "newest",
        "what the newest says",
    ];
    table(&count(rows.len() as u64, "group"), &head, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_number_that_it_begins_with() {
        assert_eq!(answer_of("422 no such shop 4711"), "422");
        assert_eq!(answer_of("HTTP 503: closed"), "503");
        for none in ["", "timed out after 10s", "10000 bytes", "4711", "42"] {
            assert_eq!(answer_of(none), "", "{none}");
        }
    }
}
