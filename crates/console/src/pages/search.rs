//! The search: one box for a ref, an id, or an event's name.

use maud::{Markup, html};
use proto::v1;

use super::{deliveries, entity_link, event_link, nothing, same_by, state, table};
use crate::params::{link, segment};
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{count, shown, time};

/// Most events of one ref.
const MAX_STORIES: u32 = 50;

/// Attempts that are shown where the text is an event's name.
const MAX_OF_NAME: u32 = 20;

pub(crate) async fn show(mut visit: Visit) -> Result<Reply, PageError> {
    let wanted = visit.params.get("q").to_owned();
    if wanted.is_empty() {
        let how = "Type an order's or another entity's ref, Fluent's id of an event, our id or its first 8 digits, or the name of an event.";
        return Ok(Reply::Page(
            "Search",
            nothing("What are you looking for?", how),
        ));
    }
    let request = v1::ShowEventsRequest {
        reference: wanted.clone(),
        limit: MAX_STORIES,
    };
    let stories = visit.api.show_events(request).await?.into_inner().events;
    if let [story] = &stories[..] {
        return Ok(Reply::See(format!("/events/{}", segment(&story.id))));
    }
    let main = match stories.is_empty() {
        false => events(&stories, &wanted),
        true => by_name(&mut visit, &wanted).await?,
    };
    Ok(Reply::Page("Search", main))
}

/// Several events of one entity: what came, and where each stands.
fn events(stories: &[v1::EventHistory], wanted: &str) -> Markup {
    let rows: Vec<_> = stories.iter().map(row).collect();
    let number = count(rows.len() as u64, "event");
    let caption = format!("{number} of {}, the newest first", shown(wanted));
    html! {
        (table(&caption, &["received", "event", "name", "entity", "origin", "where it stands"], &rows))
        (same_by(&["events", "show", wanted], &[]))
    }
}

fn row(story: &v1::EventHistory) -> Vec<Markup> {
    vec![
        time(story.received_at.as_ref()),
        event_link(&story.id),
        html! { (shown(&story.name)) },
        entity_link(&story.entity),
        html! { (shown(&story.origin)) },
        html! {
            @for outcome in story.outcomes.iter().filter(|it| !it.state.starts_with("not-")) {
                div { (shown(&outcome.route)) ": " (state(&outcome.state)) }
            }
        },
    ]
}

/// The newest attempts of events of this name.
async fn by_name(visit: &mut Visit, name: &str) -> Result<Markup, PageError> {
    let filter = v1::AttemptFilter {
        event: name.to_owned(),
        ..v1::AttemptFilter::default()
    };
    let request = v1::ListDeliveriesRequest {
        filter: Some(filter),
        page_size: MAX_OF_NAME,
        page_token: String::new(),
    };
    let found = visit.api.list_deliveries(request).await?.into_inner();
    Ok(match found.attempts.is_empty() {
        true => not_found(name),
        false => html! {
            p { "No event has this ref or id. These are the newest attempts of events with this name:" }
            (deliveries::table_of(&found.attempts, false))
            p { a href=(link("/deliveries", &[("event", name)])) { "All of this name" } }
        },
    })
}

fn not_found(wanted: &str) -> Markup {
    html! {
        div class="box wait" {
            p { strong { "Nothing is kept under " (shown(wanted)) "." } " What can be the reason:" }
            ul {
                li { "It is misspelt. A ref is compared letter by letter." }
                li { "It came, and is no event: look under " a href="/quarantine" { "Quarantine" } "." }
                li { "It came, and was refused, as its signature or account was not good: look under " a href="/refused" { "Refused" } "." }
                li { "It is older than the retention of the queue." }
                li { "It never came: `fluent-webhooks reconcile` compares with Fluent's own log." }
            }
        }
        (same_by(&["events", "show", wanted], &[]))
    }
}
