//! What happened to one event, in order of time.

use maud::{Markup, html};
use proto::v1;

use super::{state, table};
use crate::text::{count, length, shown, time};

/// Most attempts on one page.
const TOGETHER: usize = 50;

/// The story from attempt `from` on: acceptance, attempts, and retries that are to come.
pub(super) fn show(story: &v1::EventHistory, from: &str) -> Markup {
    let from = from.parse().unwrap_or(0usize).min(story.attempts.len());
    let until = (from + TOGETHER).min(story.attempts.len());
    let mut rows = Vec::new();
    if from == 0 {
        rows.push(accepted(story));
    }
    rows.extend(story.attempts[from..until].iter().map(attempted));
    if until == story.attempts.len() {
        rows.extend(story.outcomes.iter().filter_map(to_come));
    }
    let head = [
        "when",
        "what",
        "route",
        "how it ended",
        "status",
        "took",
        "why",
    ];
    html! {
        @if let Some(since) = &story.history_since {
            p class="soft" { "The history of attempts is kept since " (time(Some(since))) ": what was before is not here." }
        }
        @for gap in &story.history_gaps { (missing(gap)) }
        (table(&count(story.attempts.len() as u64, "attempt"), &head, &rows))
        @if from > 0 { p { a rel="prev" href=(format!("?from={}", from.saturating_sub(TOGETHER))) { "Earlier attempts" } } }
        @if until < story.attempts.len() { p { a rel="next" href=(format!("?from={until}")) { "Later attempts" } } }
    }
}

/// A time of which attempts may be missing.
pub(super) fn missing(gap: &v1::HistoryGap) -> Markup {
    html! {
        p class="soft" {
            "Attempts of " (shown(&gap.route)) " between " (time(gap.since.as_ref())) " and " (time(gap.until.as_ref()))
            " may be missing: they could not be recorded."
        }
    }
}

fn accepted(story: &v1::EventHistory) -> Vec<Markup> {
    let what = match story.origin.as_str() {
        "reconciled" => "found in Fluent's log",
        _ => "accepted",
    };
    let mut row = vec![time(story.received_at.as_ref()), html! { (what) }];
    row.resize_with(7, || html! {});
    row
}

fn attempted(attempt: &v1::Attempt) -> Vec<Markup> {
    vec![
        time(attempt.started_at.as_ref()),
        html! {
            "attempt " (attempt.attempt)
            @if attempt.redrive > 0 { " of redrive " (attempt.redrive) }
        },
        html! { (shown(&attempt.route)) },
        state(&attempt.outcome),
        html! { @if let Some(status) = attempt.status { (status) } },
        html! { (length(attempt.duration.as_ref())) },
        html! { (shown(&attempt.detail)) },
    ]
}

/// A retry that is to come, or a dead letter that waits for a person.
fn to_come(outcome: &v1::RouteOutcome) -> Option<Vec<Markup>> {
    let route = html! { (shown(&outcome.route)) };
    let (when, what, why) = match outcome.state.as_str() {
        "waiting" => (
            time(outcome.due_at.as_ref()),
            html! { "next attempt, not before this" },
            html! {},
        ),
        "in-flight" => (
            html! { "now" },
            html! { "an attempt is under way" },
            html! {},
        ),
        "dead" => (
            html! { "–" },
            html! { a href=(format!("/dead-letters/{}", outcome.dead_letter_id)) { "dead letter " (outcome.dead_letter_id) } },
            html! { (shown(&outcome.reason)) },
        ),
        _ => return None,
    };
    Some(vec![
        when,
        what,
        route,
        state(&outcome.state),
        html! {},
        html! {},
        why,
    ])
}
