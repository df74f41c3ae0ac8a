//! The search: one box for a ref, an id, or an event's name.

use maud::{Markup, html};
use proto::v1;

use super::{deliveries, nothing, same_by, story};
use crate::params::{link, segment};
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::shown;

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
        limit: 2,
        max_attempts: 1,
        ..v1::ShowEventsRequest::default()
    };
    let found = visit.api.show_events(request).await?.into_inner();
    match &found.events[..] {
        // What it names may lie behind what can't be read.
        [] if found.unreadable > 0 => return Ok(Reply::See(story::address(&wanted))),
        [] => {}
        [only] if !is_ref(only, &wanted) => {
            return Ok(Reply::See(format!("/events/{}", segment(&only.id))));
        }
        _ => return Ok(Reply::See(story::address(&wanted))),
    }
    if let Some(main) = by_name(&mut visit, &wanted).await? {
        return Ok(Reply::Page("Search", main));
    }
    let (refused, quarantined) = story::naming(&mut visit.api, &wanted).await?;
    if !refused.webhooks.is_empty() || !quarantined.webhooks.is_empty() {
        return Ok(Reply::See(story::address(&wanted)));
    }
    let main = html! {
        (not_found(&wanted))
        (story::not_looked_at(&wanted, &refused, &quarantined))
    };
    Ok(Reply::Page("Search", main))
}

/// True if the text is the ref of the event's entity, and no id.
fn is_ref(event: &v1::EventHistory, text: &str) -> bool {
    let reference = event.entity.split_once('/').map(|(_, reference)| reference);
    reference == Some(text)
}

/// The newest attempts of events of this name.
async fn by_name(visit: &mut Visit, name: &str) -> Result<Option<Markup>, PageError> {
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
    Ok((!found.attempts.is_empty()).then(|| {
        html! {
            p { "No event has this ref or id. These are the newest attempts of events with this name:" }
            (deliveries::table_of(&found.attempts, false))
            p { a href=(link("/deliveries", &[("event", name)])) { "All of this name" } }
        }
    }))
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
                li { "It never came: " code { "fluent-webhooks reconcile" } " compares with Fluent's own log." }
            }
        }
        (same_by(&["events", "show", wanted], &[]))
    }
}
