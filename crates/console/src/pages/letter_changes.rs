//! Redriving and discarding: first the number of those it would touch, then the change.

use std::time::Duration;

use maud::{Markup, html};
use proto::v1;
use settings::Role;
use tokio::time::{Instant, timeout_at};
use tonic::{Status, Streaming};

use super::letters::{NAMES, View, filter_of, options};
use super::{ended, nothing, same_by, selected, with_points};
use crate::params::link;
use crate::reply::{PageError, Reply};
use crate::router::Visit;
use crate::text::{count, shown};

/// For how long one request changes letters. A person looks at a page that loads.
const CHANGE_FOR: Duration = Duration::from_mins(1);

/// Letters that are looked at to count those that a filter leaves: a page must come soon, however
/// many there are.
const MAX_EXAMINED: u32 = 10_000;

/// Most letters that are marked at once: a page of them, several times.
const MAX_MARKED: usize = 500;

/// Asks before a change, with the number of those it is about. What comes meanwhile is not in it.
pub(crate) async fn ask(mut visit: Visit) -> Result<Reply, PageError> {
    let view = View::of(&visit.params);
    let is_discard = match visit.params.get("action") {
        "redrive" => false,
        "discard" => true,
        _ => return Err(PageError::bad("action: expected redrive or discard")),
    };
    // To count costs as much as to change, so it is for those who may.
    visit.caller.must(if is_discard {
        &Role::Admin
    } else {
        &Role::Operate
    })?;
    // What is asked about now is what is changed then.
    visit.params = with_points(&visit.params, visit.now)?;
    let counted = if visit.params.get("all").is_empty() {
        v1::CountDeadLettersResponse {
            count: marked(&visit)?.len() as u64,
            ..v1::CountDeadLettersResponse::default()
        }
    } else {
        let request = v1::CountDeadLettersRequest {
            filter: Some(filter_of(view, &visit)?),
            max_examined: MAX_EXAMINED,
        };
        visit.api.count_dead_letters(request).await?.into_inner()
    };
    let main = match (counted.count, counted.at_least) {
        (0, false) => nothing(
            "Nothing is left",
            "No letter is there that the filter leaves.",
        ),
        _ => question(&visit, view, is_discard, &counted),
    };
    let title = if is_discard { "Discard?" } else { "Redrive?" };
    Ok(Reply::Page(title, main))
}

fn question(
    visit: &Visit,
    view: View,
    is_discard: bool,
    counted: &v1::CountDeadLettersResponse,
) -> Markup {
    let letters = letters(counted);
    let action = if is_discard { "discard" } else { "redrive" };
    let back = link(view.path(), &visit.params.set(&NAMES));
    html! {
        div class=(if is_discard { "box bad" } else { "box" }) {
            @if counted.at_least {
                p { "Only the oldest " (MAX_EXAMINED) " letters were looked at, so that this page comes soon. The change is about all that the filter leaves." }
            }
            @if is_discard {
                p { strong { (letters) " will be removed for good." } " Nobody can bring them back." }
            } @else {
                p { strong { (letters) " will be delivered again." } " Each with fresh attempts and the same idempotency key." }
            }
        }
        form class="act" method="post" action=(format!("/dead-letters/{action}")) {
            (hidden(visit, view, counted.up_to))
            @if !is_discard { (destination(view)) }
            button class=[is_discard.then_some("danger")] { @if is_discard { "Discard " } @else { "Redrive " } (letters) }
            a href=(back) { "Leave them" }
        }
        @if !visit.params.get("all").is_empty() { (as_job(visit, view, action)) }
        (command(visit, view, action))
    }
}

/// Leads to the same as a job, which goes on when its maker has left.
fn as_job(visit: &Visit, view: View, action: &str) -> Markup {
    html! {
        form class="act" method="post" action="/jobs/ask" {
            input type="hidden" name="action" value=(action);
            @if view == View::Unrouted { input type="hidden" name="unrouted" value="1"; }
            @for (name, value) in visit.params.set(&NAMES) { input type="hidden" name=(name) value=(shown(&value)); }
            button { "Make it a job" }
            span class="soft" { "This page changes letters for a minute at most. A job goes on when you leave, and can be paused." }
        }
    }
}

/// The number in words, with what is known of it.
fn letters(counted: &v1::CountDeadLettersResponse) -> String {
    let letters = count(counted.count, "letter");
    match (counted.at_least, counted.count) {
        (false, _) => letters,
        (true, 0) => "all letters that the filter leaves".to_owned(),
        (true, _) => format!("at least {letters}"),
    }
}

/// What the change is about, as it was when it was asked for.
fn hidden(visit: &Visit, view: View, up_to: u64) -> Markup {
    let params = &visit.params;
    html! {
        @if view == View::Unrouted { input type="hidden" name="unrouted" value="1"; }
        @if params.get("all").is_empty() {
            @for id in params.all("id") { input type="hidden" name="id" value=(id); }
        } @else {
            input type="hidden" name="all" value="1";
            input type="hidden" name="up-to" value=(up_to);
            @for (name, value) in params.set(&NAMES) { input type="hidden" name=(name) value=(shown(&value)); }
        }
    }
}

fn destination(view: View) -> Markup {
    let hint = match view {
        View::Dead => "empty: each to its own",
        View::Unrouted => "its name",
    };
    html! {
        label { "To the route" input name="to" placeholder=(hint) required[view == View::Unrouted] autocomplete="off"; }
    }
}

fn command(visit: &Visit, view: View, action: &str) -> Markup {
    let name = match view {
        View::Dead => "dead-letters",
        View::Unrouted => "unrouted",
    };
    // What no route has matched has none of its own to go to.
    let to: &[(&str, &str)] = match (view, action) {
        (View::Unrouted, "redrive") => &[("--to", "ROUTE")],
        _ => &[],
    };
    if visit.params.get("all").is_empty() {
        let ids: Vec<_> = visit.params.all("id").collect();
        return same_by(&[&[name, action], &ids[..]].concat(), to);
    }
    let given = options(&visit.params);
    let given = given
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let given: Vec<_> = given.chain(to.iter().copied()).collect();
    same_by(&[name, action, "--all"], &given)
}

pub(crate) async fn redrive(mut visit: Visit) -> Result<Reply, PageError> {
    let view = View::of(&visit.params);
    let request = v1::RedriveDeadLettersRequest {
        selection: Some(selection(&visit, view)?),
        to: visit.params.get("to").to_owned(),
    };
    let stream = visit.api.redrive_dead_letters(request).await?.into_inner();
    let (counts, is_whole) = follow(stream, |answer| answer.progress).await?;
    let main = ended(&counts, "redriven", view.path(), is_whole);
    Ok(Reply::Page("Redriven", main))
}

pub(crate) async fn discard(mut visit: Visit) -> Result<Reply, PageError> {
    let view = View::of(&visit.params);
    let request = v1::DiscardDeadLettersRequest {
        selection: Some(selection(&visit, view)?),
    };
    let stream = visit.api.discard_dead_letters(request).await?.into_inner();
    let (counts, is_whole) = follow(stream, |answer| answer.progress).await?;
    let main = ended(&counts, "discarded", view.path(), is_whole);
    Ok(Reply::Page("Discarded", main))
}

/// Those that a form is about: the marked ones, or all that a filter left when it was asked for.
fn selection(visit: &Visit, view: View) -> Result<v1::DeadLetterSelection, PageError> {
    if visit.params.get("all").is_empty() {
        return Ok(v1::DeadLetterSelection {
            ids: marked(visit)?,
            filter: None,
        });
    }
    let filter = filter_of(view, visit)?;
    if filter.up_to == 0 {
        return Err(PageError::bad(
            "up-to: expected the number that was asked about",
        ));
    }
    Ok(v1::DeadLetterSelection {
        ids: Vec::new(),
        filter: Some(filter),
    })
}

fn marked(visit: &Visit) -> Result<Vec<u64>, PageError> {
    let ids = selected(&visit.params)?;
    match ids.len() <= MAX_MARKED {
        true => Ok(ids),
        false => Err(PageError::bad(
            "Expected at most 500 at once: use a filter.",
        )),
    }
}

/// Follows a long work to its end, or for as long as a person waits. Returns the last counts, and
/// whether that is the end.
pub(super) async fn follow<T>(
    mut stream: Streaming<T>,
    counts: impl Fn(T) -> Option<v1::BulkProgress>,
) -> Result<(v1::BulkProgress, bool), Status> {
    let deadline = Instant::now() + CHANGE_FOR;
    let mut last = v1::BulkProgress::default();
    loop {
        match timeout_at(deadline, stream.message()).await {
            Ok(Ok(Some(answer))) => last = counts(answer).unwrap_or_default(),
            Ok(Ok(None)) => return Ok((last, true)),
            Ok(Err(status)) => return Err(status),
            Err(_) => return Ok((last, false)),
        }
    }
}
