//! Events that were accepted, the newest first.

use maud::{Markup, html};
use proto::v1;

use super::{
    FilterField, PAGE_SIZE, as_files, entity_link, event_link, filter_form, list_link, live_bar,
    next_page, nothing, same_by, table_row, table_with, time_of, unreadable, with_points,
};
use crate::api::Api;
use crate::params::{Params, link};
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{count, shown, time};

const PATH: &str = "/events";
const FIELDS: [FilterField; 6] = [
    ("event", "Event name", ""),
    ("ref", "Ref", ""),
    ("account", "Account", ""),
    ("origin", "Origin", "reconciled"),
    ("since", "Since", "2h"),
    ("until", "Until", "2026-11-25T08:00:00Z"),
];
pub(crate) const NAMES: [&str; 6] = ["event", "ref", "account", "origin", "since", "until"];
const HEAD: [&str; 6] = ["received", "event", "name", "entity", "account", "origin"];

/// The filter that the fields say.
pub(crate) fn filter_of(visit: &Visit) -> Result<v1::EventFilter, PageError> {
    let params = &visit.params;
    Ok(v1::EventFilter {
        event: params.get("event").to_owned(),
        account: params.get("account").to_owned(),
        reference: params.get("ref").to_owned(),
        origin: params.get("origin").to_owned(),
        since: time_of(params, "since", visit.now)?,
        until: time_of(params, "until", visit.now)?,
    })
}

/// The place of the newest event, 0 if there is none.
pub(crate) async fn newest_place(api: &mut Api) -> Result<u64, PageError> {
    let request = v1::ListEventsRequest {
        page_size: 1,
        ..Default::default()
    };
    let page = api.list_events(request).await?.into_inner();
    Ok(page.events.first().map_or(0, |event| event.place))
}

pub(crate) async fn list(mut visit: Visit) -> Result<Reply, PageError> {
    // Before the list is read: what comes in between is told, and known by its key.
    let place = newest_place(&mut visit.api).await?;
    let request = v1::ListEventsRequest {
        filter: Some(filter_of(&visit)?),
        page_size: PAGE_SIZE,
        page_token: visit.params.get("page").to_owned(),
        after: 0,
    };
    let found = visit.api.list_events(request).await?.into_inner();
    let params = &visit.params;
    let points = with_points(params, visit.now)?;
    let main = html! {
        (filter_form(PATH, &FIELDS, params))
        @if params.get("until").is_empty() {
            (live_bar(&link("/live/events", &points.set(&NAMES)), place, &link(PATH, &params.set(&NAMES))))
        }
        (unreadable(found.unreadable))
        (table_of(&found))
        (next_page(PATH, &NAMES, &points, &found.next_page_token, "Older ones"))
        (as_files("events", &points.set(&NAMES)))
        (same_by(&["events", "list"], &options(params)))
    };
    Ok(Reply::Page("Events", main))
}

/// The options of the command that gives the same.
fn options(params: &Params) -> [(&'static str, &str); 6] {
    [
        ("--event", params.get("event")),
        ("--ref", params.get("ref")),
        ("--account", params.get("account")),
        ("--origin", params.get("origin")),
        ("--since", params.get("since")),
        ("--until", params.get("until")),
    ]
}

fn table_of(found: &v1::ListEventsResponse) -> Markup {
    if found.events.is_empty() {
        return match found.next_page_token.is_empty() {
            true => nothing(
                "No event is kept that this filter leaves",
                "Each event that was accepted appears here at once. A webhook that was no event is under Quarantine, and one that was refused under Refused.",
            ),
            false => nothing(
                "None among the newest",
                "10,000 events were looked at, so that this page comes soon. Older ones may be behind the link below.",
            ),
        };
    }
    let rows = html! { @for event in &found.events { (row_of(event)) } };
    table_with(&count(found.events.len() as u64, "event"), &HEAD, &rows)
}

/// The row of an event.
pub(crate) fn row_of(event: &v1::AcceptedEvent) -> Markup {
    let cells = [
        time(event.received_at.as_ref()),
        event_link(&event.id),
        list_link(PATH, "event", &event.event),
        entity_link(&event.entity),
        list_link(PATH, "account", &event.account),
        html! { (shown(&event.origin)) },
    ];
    table_row(&HEAD, &event.id, &cells)
}
