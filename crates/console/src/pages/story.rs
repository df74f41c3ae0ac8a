//! Everything of an entity on one page, by time: what came, what each route did with it, what is
//! to come, and what was refused and only names it.

use std::collections::BTreeSet;

use event_model::Timestamp;
use maud::{Markup, html};
use proto::v1;

use super::event::{meaning, retry_form, takes};
use super::timeline::missing;
use super::{
    FilterField, command as shell, event_link, filter_form, list_link, next_page, nothing, same_by,
    state, table, time_of, unreadable, with_points,
};
use crate::params::link;
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{count, count_of, length, shown, time};

const PATH: &str = "/story";
const FIELDS: [FilterField; 4] = [
    ("ref", "Ref", ""),
    ("route", "Route", ""),
    ("since", "Received since", "2h"),
    ("until", "Received until", "2026-11-25T08:00:00Z"),
];
const NAMES: [&str; 4] = ["ref", "route", "since", "until"];

/// Events of one page, and most attempts of each.
const EVENTS: u32 = 20;
const ATTEMPTS: u32 = 25;

/// Most webhooks that were refused, or are in quarantine, on one page.
const OTHERS: u32 = 50;

const HEAD: [&str; 9] = [
    "when",
    "event",
    "name",
    "what",
    "route",
    "how it ended",
    "status",
    "took",
    "why",
];

/// One thing that happened, or will.
struct Entry {
    /// Where it is in the order of time; `None` for what has no time: it comes last.
    at: Option<Timestamp>,
    cells: Vec<Markup>,
}

/// What is known of an entity.
struct Found {
    events: Vec<v1::EventHistory>,
    next: String,
    unreadable: u32,
    refused: v1::ListRefusedResponse,
    quarantined: v1::ListQuarantinedResponse,
}

/// The address of the page of a ref.
pub(super) fn address(reference: &str) -> String {
    link(PATH, &[("ref", reference)])
}

pub(crate) async fn show(mut visit: Visit) -> Result<Reply, PageError> {
    let reference = visit.params.get("ref").to_owned();
    if reference.is_empty() {
        let how = "The search leads here: type the ref of an order or of another entity.";
        let main =
            html! { (filter_form(PATH, &FIELDS, &visit.params)) (nothing("Whose story?", how)) };
        return Ok(Reply::Page("Story", main));
    }
    let found = read(&mut visit, &reference).await?;
    let points = with_points(&visit.params, visit.now)?;
    let entries = entries(&found, visit.now);
    let rows: Vec<_> = entries.into_iter().map(|entry| entry.cells).collect();
    let caption = format!(
        "{} of {}",
        count(found.events.len() as u64, "event"),
        shown(&reference)
    );
    let main = html! {
        (filter_form(PATH, &FIELDS, &visit.params))
        (limits(&reference, &found))
        @if rows.is_empty() {
            (nothing("Nothing is kept of it that this filter leaves", "Each webhook that names it appears here, and every attempt to deliver it."))
        } @else {
            (table(&caption, &HEAD, &rows))
            (routes(&visit, &found.events))
        }
        (next_page(PATH, &NAMES, &points, &found.next, "Older events"))
        (commands(&visit, &reference))
    };
    Ok(Reply::Page("Story", main))
}

async fn read(visit: &mut Visit, reference: &str) -> Result<Found, PageError> {
    let params = &visit.params;
    let since = time_of(params, "since", visit.now)?;
    let until = time_of(params, "until", visit.now)?;
    // What is no event has no route, and is told with the newest.
    let has_others = params.get("route").is_empty() && params.get("page").is_empty();
    let request = v1::ShowEventsRequest {
        reference: reference.to_owned(),
        limit: EVENTS,
        page_token: params.get("page").to_owned(),
        route: params.get("route").to_owned(),
        since,
        until,
        max_attempts: ATTEMPTS,
    };
    let mut api = visit.api.clone();
    let mut others_api = visit.api.clone();
    let events = async { Ok::<_, PageError>(api.show_events(request).await?.into_inner()) };
    let others = async {
        match has_others {
            true => naming(&mut others_api, reference).await,
            false => Ok(Default::default()),
        }
    };
    let (events, (mut refused, mut quarantined)) = tokio::try_join!(events, others)?;
    let is_within = |at: Option<&proto::Timestamp>| {
        let at = at.and_then(grpc::timestamp_of);
        let since = since.as_ref().and_then(grpc::timestamp_of);
        let until = until.as_ref().and_then(grpc::timestamp_of);
        at.is_none_or(|at| {
            since.is_none_or(|since| at >= since) && until.is_none_or(|until| at < until)
        })
    };
    refused
        .webhooks
        .retain(|it| is_within(it.received_at.as_ref()));
    quarantined
        .webhooks
        .retain(|it| is_within(it.received_at.as_ref()));
    Ok(Found {
        events: events.events,
        next: events.next_page_token,
        unreadable: events.unreadable,
        refused,
        quarantined,
    })
}

/// Webhooks that are no events, and have the ref in their body.
pub(super) async fn naming(
    api: &mut crate::api::Api,
    reference: &str,
) -> Result<(v1::ListRefusedResponse, v1::ListQuarantinedResponse), PageError> {
    let refused = v1::ListRefusedRequest {
        page_size: OTHERS,
        page_token: String::new(),
        reference: reference.to_owned(),
    };
    let quarantined = v1::ListQuarantinedRequest {
        page_size: OTHERS,
        page_token: String::new(),
        reference: reference.to_owned(),
    };
    let refused = api.list_refused(refused).await?.into_inner();
    let quarantined = api.list_quarantined(quarantined).await?.into_inner();
    Ok((refused, quarantined))
}

/// What is not on this page.
fn limits(reference: &str, found: &Found) -> Markup {
    let cut = found.events.iter().filter(|it| it.attempts_left_out > 0);
    html! {
        (unreadable(found.unreadable))
        @if !found.next.is_empty() {
            p class="soft" { "These are the newest " (found.events.len()) " events that were found. Older ones are behind the link below." }
        }
        @for event in cut {
            p class="soft" { (count(u64::from(event.attempts_left_out), "older attempt")) " of event " (event_link(&event.id)) " are on its own page." }
        }
        @for event in found.events.iter().filter(|it| it.history_since.is_some()) {
            p class="soft" { "Of event " (event_link(&event.id)) " the attempts before " (time(event.history_since.as_ref())) " are no longer kept." }
        }
        @for gap in gaps(&found.events) { (missing(gap)) }
        (not_looked_at(reference, &found.refused, &found.quarantined))
    }
}

/// What was refused or is in quarantine, and was not looked at: how to look on.
pub(super) fn not_looked_at(
    reference: &str,
    refused: &v1::ListRefusedResponse,
    quarantined: &v1::ListQuarantinedResponse,
) -> Markup {
    let stores = [
        ("refused", "were refused", &refused.next_page_token),
        (
            "quarantine",
            "are in quarantine",
            &quarantined.next_page_token,
        ),
    ];
    html! {
        @for (command, words, before) in stores.iter().filter(|(_, _, before)| !before.is_empty()) {
            p class="soft" {
                "Of the webhooks that " (words) ", only the newest were looked at, down to number " (before) ". Older ones may name it too: "
                @if let Some(line) = shell(&[command, "list"], &[("--ref", reference), ("--before", before)]) {
                    code class="command" { (line) }
                }
            }
        }
    }
}

/// Times of which attempts may be missing, each once.
fn gaps(events: &[v1::EventHistory]) -> Vec<&v1::HistoryGap> {
    let mut gaps: Vec<&v1::HistoryGap> = Vec::new();
    for gap in events.iter().flat_map(|event| &event.history_gaps) {
        if !gaps.contains(&gap) {
            gaps.push(gap);
        }
    }
    gaps
}

fn entries(found: &Found, now: Timestamp) -> Vec<Entry> {
    let mut entries = Vec::new();
    for event in &found.events {
        entries.push(accepted(event));
        entries.extend(event.attempts.iter().map(|it| attempted(event, it)));
        entries.extend(event.outcomes.iter().filter_map(|it| open(event, it, now)));
    }
    entries.extend(found.refused.webhooks.iter().map(refused));
    entries.extend(found.quarantined.webhooks.iter().map(quarantined));
    // Stable: what has the same time stays in the order in which it follows from each other.
    entries.sort_by_key(|entry| entry.at.unwrap_or(Timestamp::MAX));
    entries
}

fn entry(
    at: Option<&proto::Timestamp>,
    event: Option<&v1::EventHistory>,
    what: Markup,
    rest: [Markup; 5],
) -> Entry {
    let named = html! { @if let Some(event) = event { (event_link(&event.id)) } };
    let name = html! { @if let Some(event) = event { (shown(&event.name)) } };
    let mut cells = vec![time(at), named, name, what];
    cells.extend(rest);
    Entry {
        at: at.and_then(grpc::timestamp_of),
        cells,
    }
}

fn accepted(event: &v1::EventHistory) -> Entry {
    let what = match event.origin.as_str() {
        "reconciled" => "found in Fluent's log",
        _ => "accepted",
    };
    let again = html! {
        @for other in &event.same_id {
            div { "told again with another body: " (event_link(&other.event_id)) }
        }
    };
    let rest = [html! {}, html! {}, html! {}, html! {}, again];
    let accepted = entry(
        event.received_at.as_ref(),
        Some(event),
        html! { (what) },
        rest,
    );
    // Clocks of two machines differ: nothing was attempted before it was accepted.
    let began = event
        .attempts
        .iter()
        .filter_map(|it| it.started_at.as_ref());
    let began = began.filter_map(grpc::timestamp_of);
    Entry {
        at: began.chain(accepted.at).min(),
        ..accepted
    }
}

fn attempted(event: &v1::EventHistory, attempt: &v1::Attempt) -> Entry {
    let what = html! {
        "attempt " (attempt.attempt)
        @if attempt.redrive > 0 { " of redrive " (attempt.redrive) }
    };
    let rest = [
        html! { (shown(&attempt.route)) },
        state(&attempt.outcome),
        html! { @if let Some(status) = attempt.status { (status) } },
        html! { (length(attempt.duration.as_ref())) },
        html! { (shown(&attempt.detail)) },
    ];
    entry(attempt.started_at.as_ref(), Some(event), what, rest)
}

/// What is not over on a route: a retry to come, an attempt, or a letter for a person.
fn open(event: &v1::EventHistory, outcome: &v1::RouteOutcome, now: Timestamp) -> Option<Entry> {
    let what = match outcome.state.as_str() {
        "waiting" => html! { "next attempt, not before this" },
        "in-flight" => html! { "an attempt is under way" },
        "dead" => html! {
            a href=(format!("/dead-letters/{}", outcome.dead_letter_id)) { "dead letter " (outcome.dead_letter_id) }
        },
        _ => return None,
    };
    let at = match outcome.state.as_str() {
        "waiting" => outcome.due_at,
        "in-flight" => Some(grpc::timestamp(now)),
        _ => ended(event, &outcome.route),
    };
    let rest = [
        html! { (shown(&outcome.route)) },
        state(&outcome.state),
        html! {},
        html! {},
        html! { (shown(&outcome.reason)) },
    ];
    Some(entry(at.as_ref(), Some(event), what, rest))
}

/// When the last attempt of a route ended, which is when its letter was written.
fn ended(event: &v1::EventHistory, route: &str) -> Option<proto::Timestamp> {
    let last = event.attempts.iter().rev().find(|it| it.route == route)?;
    let began = grpc::timestamp_of(last.started_at.as_ref()?)?;
    let took = last.duration.as_ref().and_then(grpc::duration_of);
    let ended = began.checked_add(took.unwrap_or_default()).ok()?;
    Some(grpc::timestamp(ended))
}

fn refused(webhook: &v1::RefusedWebhook) -> Entry {
    let what = html! {
        a href=(format!("/refused/{}", webhook.id)) { "refused: " (shown(&webhook.reason)) }
    };
    let why = html! { "anybody can have written it" };
    let rest = [html! {}, state("refused"), html! {}, html! {}, why];
    entry(webhook.received_at.as_ref(), None, what, rest)
}

fn quarantined(webhook: &v1::QuarantinedWebhook) -> Entry {
    let what = html! { a href="/quarantine" { "in quarantine, number " (webhook.id) } };
    let why = html! { (shown(&webhook.reason)) };
    let rest = [html! {}, state("quarantined"), html! {}, html! {}, why];
    entry(webhook.received_at.as_ref(), None, what, rest)
}

/// Why each route did or did not take each event.
fn routes(visit: &Visit, events: &[v1::EventHistory]) -> Markup {
    let rows = events.iter().flat_map(|event| {
        let outcomes = event.outcomes.iter().map(|it| it.route.as_str());
        let listed = event.matches.iter().map(|it| it.route.as_str());
        let names: BTreeSet<&str> = outcomes.chain(listed).collect();
        names.into_iter().map(|name| route_row(visit, event, name))
    });
    let rows: Vec<_> = rows.collect();
    let head = [
        "event",
        "name",
        "route",
        "state",
        "what that means",
        "does it take it, by the settings of now?",
        "",
    ];
    html! {
        @if !rows.is_empty() {
            h2 { "Which route takes what" }
            (table(&count_of(rows.len() as u64, "event and route", "events and routes"), &head, &rows))
        }
    }
}

fn route_row(visit: &Visit, event: &v1::EventHistory, name: &str) -> Vec<Markup> {
    let outcome = event.outcomes.iter().find(|it| it.route == name).cloned();
    let matching = event.matches.iter().find(|it| it.route == name);
    let outcome = outcome.unwrap_or_else(|| v1::RouteOutcome {
        route: name.to_owned(),
        state: "not-reached".to_owned(),
        ..v1::RouteOutcome::default()
    });
    vec![
        event_link(&event.id),
        html! { (shown(&event.name)) },
        list_link("/deliveries", "route", name),
        state(&outcome.state),
        meaning(&outcome, matching),
        takes(event, matching),
        retry_form(visit, &event.id, &outcome),
    ]
}

/// The commands that give the same: one for each store.
fn commands(visit: &Visit, reference: &str) -> Markup {
    let params = &visit.params;
    let options = [
        ("--route", params.get("route")),
        ("--since", params.get("since")),
        ("--until", params.get("until")),
    ];
    html! {
        (same_by(&["events", "show", reference], &options))
        @if params.get("route").is_empty() {
            (same_by(&["refused", "list"], &[("--ref", reference)]))
            (same_by(&["quarantine", "list"], &[("--ref", reference)]))
        }
    }
}
