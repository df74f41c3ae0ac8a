//! One event: where it stands on each route, and everything that happened, in order of time.

use maud::{Markup, html};
use proto::v1;
use settings::Role;

use super::{body_text, entity_link, event_link, list_link, same_by, state, table, timeline};
use crate::params::{encoded, segment};
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{shown, time};

pub(crate) async fn show(mut visit: Visit, id: &str) -> Result<Reply, PageError> {
    let request = v1::ShowEventsRequest {
        reference: id.to_owned(),
        limit: 1,
        ..v1::ShowEventsRequest::default()
    };
    let found = visit.api.show_events(request).await?.into_inner();
    let is_unreadable = found.unreadable > 0;
    let Some(story) = found.events.into_iter().next() else {
        let words = match is_unreadable {
            true => format!("Event {id} is stored and can't be read: its content is damaged."),
            false => format!(
                "No event {id} is kept. It may be older than the retention, or never have been an event."
            ),
        };
        return Err(PageError::not_found(words));
    };
    let main = html! {
        (facts(&visit, &story))
        h2 { "Where it stands" }
        (outcomes(&visit, &story))
        h2 { "What happened" }
        (timeline::show(&story, visit.params.get("from")))
        h2 { "Its body" }
        (body_button(&visit, &story))
        (same_by(&["events", "show", &story.id], &[]))
    };
    Ok(Reply::Page("Event", main))
}

fn facts(visit: &Visit, story: &v1::EventHistory) -> Markup {
    html! {
        dl {
            dt { "Name" } dd { (list_link("/deliveries", "event", &story.name)) }
            dt { "Entity" } dd { (entity_link(&story.entity)) }
            dt { "Source" } dd { (shown(&story.source)) }
            dt { "Received" } dd { (time(story.received_at.as_ref())) " " (origin(story)) }
            dt { "Id" } dd { code { (shown(&story.id)) } }
            @if !story.trace_id.is_empty() {
                dt { "Trace" } dd { (trace(visit, &story.trace_id)) }
            }
            @if !story.same_id.is_empty() {
                dt { "Fluent told it again with another body" }
                dd {
                    @for other in &story.same_id {
                        div { (event_link(&other.event_id)) " received " (time(other.received_at.as_ref())) }
                    }
                }
            }
        }
    }
}

fn origin(story: &v1::EventHistory) -> &'static str {
    match story.origin.as_str() {
        "reconciled" => "from Fluent's log: its webhook never came",
        _ => "as a webhook; its signature was good",
    }
}

fn trace(visit: &Visit, id: &str) -> Markup {
    let url = visit.trace_url.as_ref();
    let url = url.map(|url| url.replace("{trace-id}", &encoded(id)));
    html! {
        @match url {
            Some(url) => a href=(url) rel="noreferrer noopener" { (shown(id)) },
            None => code { (shown(id)) },
        }
    }
}

fn outcomes(visit: &Visit, story: &v1::EventHistory) -> Markup {
    // Routes that have run, and those of the settings that have not.
    let mut names: Vec<&str> = story.outcomes.iter().map(|it| it.route.as_str()).collect();
    let listed = story.matches.iter().map(|it| it.route.as_str());
    let others: Vec<_> = listed.filter(|name| !names.contains(name)).collect();
    names.extend(others);
    if names.is_empty() {
        return html! { p class="soft" { "No route has run yet." } };
    }
    let rows = names.iter().map(|name| {
        let outcome = story.outcomes.iter().find(|it| it.route == **name);
        let matching = story.matches.iter().find(|it| it.route == **name);
        let outcome = outcome.cloned().unwrap_or_else(|| v1::RouteOutcome {
            route: (*name).to_owned(),
            state: "not-reached".to_owned(),
            ..v1::RouteOutcome::default()
        });
        outcome_row(visit, story, &outcome, matching)
    });
    let rows: Vec<_> = rows.collect();
    let head = [
        "route",
        "state",
        "what that means",
        "does it take it, by the settings of now?",
        "",
    ];
    table("Each route", &head, &rows)
}

pub(super) fn takes(story: &v1::EventHistory, matching: Option<&v1::RouteMatch>) -> Markup {
    let Some(matching) = matching else {
        // Settings without routes, as those of an operator beside a cluster, say nothing of one.
        let words = match story.matches.is_empty() {
            true => "not known here",
            false => "not in these settings",
        };
        return html! { span class="soft" { (words) } };
    };
    html! {
        @match matching.takes {
            Some(true) => "yes",
            Some(false) => "no",
            None => "a dead letter",
        }
        @for reason in &matching.reasons { div class="soft" { (shown(reason)) } }
    }
}

fn outcome_row(
    visit: &Visit,
    story: &v1::EventHistory,
    outcome: &v1::RouteOutcome,
    matching: Option<&v1::RouteMatch>,
) -> Vec<Markup> {
    vec![
        list_link("/deliveries", "route", &outcome.route),
        state(&outcome.state),
        meaning(outcome, matching),
        takes(story, matching),
        retry_form(visit, &story.id, outcome),
    ]
}

/// Tries what waits on a route now.
pub(super) fn retry_form(visit: &Visit, event: &str, outcome: &v1::RouteOutcome) -> Markup {
    html! {
        @if outcome.state == "waiting" && visit.may(&Role::Operate) {
            form method="post" action=(format!("/events/{}/retry", segment(event))) {
                input type="hidden" name="route" value=(outcome.route);
                button { "Try now" }
            }
        }
    }
}

pub(super) fn meaning(outcome: &v1::RouteOutcome, matching: Option<&v1::RouteMatch>) -> Markup {
    let is_passed_over = matching.is_some_and(|matching| matching.takes == Some(false));
    html! {
        @match outcome.state.as_str() {
            "done" => "the destination has it",
            "in-flight" => "it is being attempted",
            "waiting" => { "next attempt not before " (time(outcome.due_at.as_ref())) },
            "dead" => {
                a href=(format!("/dead-letters/{}", outcome.dead_letter_id)) { "dead letter " (outcome.dead_letter_id) }
                ": " (shown(&outcome.reason))
            },
            "not-wanted" => "it is not for this route",
            "not-reached" if is_passed_over => "it is not for this route",
            "not-reached" => "the route has not come to it, or does not take it",
            _ => "what became of it is no longer kept",
        }
    }
}

fn body_button(visit: &Visit, story: &v1::EventHistory) -> Markup {
    html! {
        @if visit.may(&Role::Operate) {
            form method="post" action=(format!("/events/{}/body", segment(&story.id))) {
                button { "Show the body" }
                " " span class="soft" { "It may hold personal data. The audit log has who looked." }
            }
        } @else {
            p class="soft" { "Bodies take the role operate." }
        }
    }
}

pub(crate) async fn retry(mut visit: Visit, id: &str) -> Result<Reply, PageError> {
    let request = v1::RetryDeliveryRequest {
        event: id.to_owned(),
        route: visit.params.get("route").to_owned(),
    };
    visit.api.retry_delivery(request).await?;
    Ok(Reply::See(format!("/events/{}", segment(id))))
}

pub(crate) async fn body(mut visit: Visit, id: &str) -> Result<Reply, PageError> {
    let request = v1::GetEventBodyRequest {
        event: id.to_owned(),
    };
    let found = visit.api.get_event_body(request).await?.into_inner();
    let command = same_by(&["events", "body", &found.event_id], &[]);
    let main = html! {
        p { "Of event " (event_link(&found.event_id)) "." }
        (body_text(&found.body, command))
    };
    Ok(Reply::Page("Body", main))
}
