//! Attempts that have ended, the newest first.

use maud::{Markup, html};
use proto::v1;

use super::{
    FilterField, PAGE_SIZE, as_files, entity_link, event_link, filter_form, list_link, live_bar,
    next_page, nothing, same_by, state, table_row, table_with, time_of, with_points,
};
use crate::params::{Params, link};
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{cell, count, length, time};

const PATH: &str = "/deliveries";
const FIELDS: [FilterField; 8] = [
    ("route", "Route", ""),
    ("event", "Event name", ""),
    ("ref", "Ref", ""),
    ("account", "Account", ""),
    ("outcome", "Outcome", "transient"),
    ("status", "Status", "422"),
    ("since", "Since", "2h"),
    ("until", "Until", "2026-11-25T08:00:00Z"),
];
pub(crate) const NAMES: [&str; 8] = [
    "route", "event", "ref", "account", "outcome", "status", "since", "until",
];

const HEAD: [&str; 10] = [
    "began", "event", "name", "entity", "route", "attempt", "outcome", "status", "took", "why",
];

/// The filter that the fields say.
pub(crate) fn filter_of(visit: &Visit) -> Result<v1::AttemptFilter, PageError> {
    let params = &visit.params;
    Ok(v1::AttemptFilter {
        route: params.get("route").to_owned(),
        event: params.get("event").to_owned(),
        account: params.get("account").to_owned(),
        reference: params.get("ref").to_owned(),
        outcome: params.get("outcome").to_owned(),
        status: status_of(params)?,
        since: time_of(params, "since", visit.now)?,
        until: time_of(params, "until", visit.now)?,
    })
}

/// What the destination answered; 0 for any.
fn status_of(params: &Params) -> Result<u32, PageError> {
    let text = params.get("status");
    if text.is_empty() {
        return Ok(0);
    }
    let wrong = || PageError::bad("status: expected a number such as 422");
    let status: u16 = text.parse().map_err(|_| wrong())?;
    match status {
        0 => Err(wrong()),
        status => Ok(u32::from(status)),
    }
}

pub(crate) async fn show(mut visit: Visit) -> Result<Reply, PageError> {
    let filter = filter_of(&visit)?;
    let request = v1::ListDeliveriesRequest {
        filter: Some(filter),
        page_size: PAGE_SIZE,
        page_token: visit.params.get("page").to_owned(),
    };
    let found = visit.api.list_deliveries(request).await?.into_inner();
    let params = &visit.params;
    let points = with_points(params, visit.now)?;
    let options: Vec<_> = NAMES
        .iter()
        .map(|name| (format!("--{name}"), params.get(name)))
        .collect();
    let options: Vec<_> = options
        .iter()
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    let main = html! {
        (filter_form(PATH, &FIELDS, params))
        // What ended before a time is not live.
        @if params.get("until").is_empty() {
            (live_bar(&link("/live/deliveries", &points.set(&NAMES)), visit.now, &link(PATH, &params.set(&NAMES))))
        }
        (table_of(&found.attempts, !found.next_page_token.is_empty()))
        (next_page(PATH, &NAMES, &points, &found.next_page_token, "Older ones"))
        (as_files("deliveries", &points.set(&NAMES)))
        (same_by(&["deliveries"], &options))
    };
    Ok(Reply::Page("Deliveries", main))
}

/// The table of attempts of any events.
pub(super) fn table_of(attempts: &[v1::Attempt], has_more: bool) -> Markup {
    if attempts.is_empty() {
        return match has_more {
            true => nothing(
                "None among the newest",
                "Older ones may be behind the link below.",
            ),
            false => nothing(
                "No attempt has ended that this filter leaves",
                "Each attempt to deliver an event to a route appears here when it ends. An event that no route matches is under Unrouted.",
            ),
        };
    }
    let rows = html! { @for attempt in attempts { (row_of(attempt)) } };
    let caption = count(attempts.len() as u64, "attempt");
    table_with(&caption, &HEAD, &rows)
}

/// The row of an attempt.
pub(crate) fn row_of(attempt: &v1::Attempt) -> Markup {
    table_row(&HEAD, &key_of(attempt), &row(attempt))
}

/// What no other attempt has.
pub(crate) fn key_of(attempt: &v1::Attempt) -> String {
    let v1::Attempt {
        event_id,
        route,
        redrive,
        attempt,
        ..
    } = attempt;
    format!("{event_id}/{redrive}/{attempt}/{route}")
}

fn row(attempt: &v1::Attempt) -> Vec<Markup> {
    vec![
        time(attempt.started_at.as_ref()),
        event_link(&attempt.event_id),
        list_link(PATH, "event", &attempt.event),
        entity_link(&attempt.entity),
        list_link(PATH, "route", &attempt.route),
        html! { (attempt.attempt) @if attempt.redrive > 0 { span class="soft" { " of redrive " (attempt.redrive) } } },
        state(&attempt.outcome),
        html! { @if let Some(status) = attempt.status { (status) } },
        html! { (length(attempt.duration.as_ref())) },
        html! { (cell(&attempt.detail)) },
    ]
}
