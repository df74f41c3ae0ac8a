//! Attempts, and what became of events.

use proto::v1;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Seconds, UtcTime, position, text};

/// One attempt that has ended.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Attempt {
    /// The event's id: 64 hexadecimal digits.
    event_id: String,
    /// The event's name.
    event: String,
    /// Fluent's accountId. `null` where it is not known any more.
    account: Option<String>,
    /// `<entityType>/<entityRef>`.
    entity: Option<String>,
    /// The route that attempted it.
    route: String,
    /// Number of the redrive or replay, 0 for none.
    redrive: u32,
    /// 1 for the first.
    attempt: u32,
    started_at: Option<UtcTime>,
    duration_seconds: Seconds,
    /// `done`, `transient`, `permanent`, `timed-out`, `panicked`, `unrouted`, `died` or
    /// `returned`.
    outcome: String,
    /// What the destination answered, where it has a number.
    status: Option<u32>,
    /// Why, in words.
    detail: Option<String>,
}

impl From<&v1::Attempt> for Attempt {
    fn from(attempt: &v1::Attempt) -> Self {
        Self {
            event_id: attempt.event_id.clone(),
            event: attempt.event.clone(),
            account: text(&attempt.account),
            entity: text(&attempt.entity),
            route: attempt.route.clone(),
            redrive: attempt.redrive,
            attempt: attempt.attempt,
            started_at: UtcTime::of(attempt.started_at.as_ref()),
            duration_seconds: Seconds::of(attempt.duration.as_ref()),
            outcome: attempt.outcome.clone(),
            status: attempt.status,
            detail: text(&attempt.detail),
        }
    }
}

/// One event that was accepted.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AcceptedEvent {
    /// The event's id: 64 hexadecimal digits.
    event_id: String,
    /// The event's name.
    event: String,
    /// Fluent's accountId.
    account: String,
    /// `<entityType>/<entityRef>`.
    entity: Option<String>,
    received_at: Option<UtcTime>,
    /// `webhook`, or `reconciled` where it never came.
    origin: Option<String>,
    /// Where it is stored: a sequence, or `<shard>:<sequence>`.
    position: String,
}

impl From<&v1::AcceptedEvent> for AcceptedEvent {
    fn from(event: &v1::AcceptedEvent) -> Self {
        Self {
            event_id: event.id.clone(),
            event: event.event.clone(),
            account: event.account.clone(),
            entity: text(&event.entity),
            received_at: UtcTime::of(event.received_at.as_ref()),
            origin: text(&event.origin),
            position: position(event.place),
        }
    }
}

/// One event, and what became of it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventHistory {
    /// The event's id: 64 hexadecimal digits.
    event_id: String,
    /// The event's name.
    event: String,
    /// `<entityType>/<entityRef>`.
    entity: Option<String>,
    /// `/fluent/<environment>/<account>/<retailer>`.
    source: String,
    /// Where it is stored: a sequence, or `<shard>:<sequence>`.
    position: String,
    received_at: Option<UtcTime>,
    /// `webhook`, or `reconciled` where it never came.
    origin: Option<String>,
    trace_id: Option<String>,
    /// Since when attempts are recorded, where the event came before that.
    history_since: Option<UtcTime>,
    /// Times in which attempts that it may have had could not be recorded.
    history_gaps: Vec<HistoryGap>,
    /// Other events with the same id and name at Fluent, and another body.
    same_id: Vec<SameIdEvent>,
    /// In order of time.
    attempts: Vec<Attempt>,
    /// Where it stands on each route.
    outcomes: Vec<RouteOutcome>,
    /// Whether each route of the settings takes it, by the settings of now. Of the first 20 events.
    matches: Vec<RouteMatch>,
}

/// Whether a route takes an event.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct RouteMatch {
    route: String,
    /// `null` where its `when` gives no answer: it becomes a dead letter there.
    takes: Option<bool>,
    /// What does not hold, or why `when` gives no answer.
    reasons: Vec<String>,
}

/// A time in which attempts of a route could not be recorded.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct HistoryGap {
    route: String,
    since_at: Option<UtcTime>,
    until: Option<UtcTime>,
}

/// An event that shares Fluent's own id and the name with another.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct SameIdEvent {
    event_id: String,
    received_at: Option<UtcTime>,
    /// `webhook` or `reconciled`.
    origin: Option<String>,
}

/// Where an event stands on one route.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct RouteOutcome {
    route: String,
    /// `done`, `in-flight`, `waiting`, `dead`, `not-reached`, `not-wanted` or `unknown`.
    state: String,
    /// Waiting: not before this.
    due_at: Option<UtcTime>,
    /// Dead: the number of its dead letter.
    dead_letter: Option<u64>,
    /// Dead: why.
    reason: Option<String>,
}

impl From<&v1::EventHistory> for EventHistory {
    fn from(event: &v1::EventHistory) -> Self {
        Self {
            event_id: event.id.clone(),
            event: event.name.clone(),
            entity: text(&event.entity),
            source: event.source.clone(),
            position: position(event.position),
            received_at: UtcTime::of(event.received_at.as_ref()),
            origin: text(&event.origin),
            trace_id: text(&event.trace_id),
            history_since: UtcTime::of(event.history_since.as_ref()),
            history_gaps: event.history_gaps.iter().map(HistoryGap::from).collect(),
            same_id: event.same_id.iter().map(SameIdEvent::from).collect(),
            attempts: event.attempts.iter().map(Attempt::from).collect(),
            outcomes: event.outcomes.iter().map(RouteOutcome::from).collect(),
            matches: event.matches.iter().map(RouteMatch::from).collect(),
        }
    }
}

impl From<&v1::RouteMatch> for RouteMatch {
    fn from(matching: &v1::RouteMatch) -> Self {
        Self {
            route: matching.route.clone(),
            takes: matching.takes,
            reasons: matching.reasons.clone(),
        }
    }
}

impl From<&v1::HistoryGap> for HistoryGap {
    fn from(gap: &v1::HistoryGap) -> Self {
        Self {
            route: gap.route.clone(),
            since_at: UtcTime::of(gap.since.as_ref()),
            until: UtcTime::of(gap.until.as_ref()),
        }
    }
}

impl From<&v1::SameIdEvent> for SameIdEvent {
    fn from(other: &v1::SameIdEvent) -> Self {
        Self {
            event_id: other.event_id.clone(),
            received_at: UtcTime::of(other.received_at.as_ref()),
            origin: text(&other.origin),
        }
    }
}

impl From<&v1::RouteOutcome> for RouteOutcome {
    fn from(outcome: &v1::RouteOutcome) -> Self {
        Self {
            route: outcome.route.clone(),
            state: outcome.state.clone(),
            due_at: UtcTime::of(outcome.due_at.as_ref()),
            dead_letter: Some(outcome.dead_letter_id).filter(|id| *id > 0),
            reason: text(&outcome.reason),
        }
    }
}

/// The body of an event.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventBody {
    /// The event's id: 64 hexadecimal digits.
    event_id: String,
    /// The body as text; without `--json` it is printed byte for byte.
    body: String,
}

impl From<&v1::GetEventBodyResponse> for EventBody {
    fn from(found: &v1::GetEventBodyResponse) -> Self {
        Self {
            event_id: found.event_id.clone(),
            body: String::from_utf8_lossy(&found.body).into_owned(),
        }
    }
}

/// What came of a test event.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SentTestEvent {
    /// The event's id: 64 hexadecimal digits.
    event_id: String,
    /// Where it went, without secrets; `null` if its dispatcher can't say.
    target: Option<String>,
    /// The server that sent it, or the queue whose settings did.
    sent_by: String,
    /// The parts of the route that the settings given here have otherwise than the server.
    different_settings: Vec<String>,
    /// As of an attempt: `done`, `transient`, `permanent` and others.
    outcome: String,
    /// What the destination answered, where it has a number.
    status: Option<u32>,
    /// Why, in words.
    detail: Option<String>,
    duration_seconds: Seconds,
    /// What the destination answered, as text.
    answer: Option<String>,
    answer_bytes: usize,
    /// The event's body.
    body: String,
    body_bytes: usize,
    /// Why the route would not take such an event; empty if it would.
    mismatches: Vec<String>,
}

impl SentTestEvent {
    pub(crate) fn new(
        sent: &v1::SendTestEventResponse,
        sent_by: &str,
        different_settings: &[String],
    ) -> Self {
        Self {
            event_id: sent.event_id.clone(),
            target: text(&sent.target),
            sent_by: sent_by.to_owned(),
            different_settings: different_settings.to_vec(),
            outcome: sent.outcome.clone(),
            status: sent.status,
            detail: text(&sent.detail),
            duration_seconds: Seconds::of(sent.duration.as_ref()),
            answer: text(&String::from_utf8_lossy(&sent.answer)),
            answer_bytes: sent.answer.len(),
            body: String::from_utf8_lossy(&sent.body).into_owned(),
            body_bytes: sent.body.len(),
            mismatches: sent.mismatches.clone(),
        }
    }
}
