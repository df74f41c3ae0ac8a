//! Ended attempts in the history, and the query by which people list them.

use event_model::{Event, EventId, Timestamp};

use crate::{Outcome, StoryStep};

/// Selection of attempts. A filter that is not set excludes nothing.
#[derive(Clone, Debug, Default)]
pub struct AttemptQuery {
    /// Only of this route.
    pub route: Option<String>,
    /// Only of events of this name.
    pub event: Option<String>,
    /// Only of this account.
    pub account: Option<String>,
    /// Only of this entity ref or root entity ref.
    pub reference: Option<String>,
    /// Only attempts with this outcome.
    pub outcome: Option<Outcome>,
    /// Only attempts that the destination answered with this number.
    pub status: Option<u16>,
    /// Only attempts that ended at this time or later.
    pub since: Option<Timestamp>,
    /// Only attempts that ended before this time.
    pub until: Option<Timestamp>,
    /// Only attempts older than those of the page before: its [`AttemptPage::next`]. It is not a
    /// [`Position`](crate::Position), since each queue counts in the order of its own history: by
    /// times, or by sequences of another log.
    pub before: Option<u64>,
    /// Approximate size of a page. A page can have fewer attempts, or none, although more follow:
    /// the number of records looked through for a page is bounded.
    pub limit: usize,
}

/// A page of attempts, with the value from which the next goes on.
#[derive(Clone, Debug, Default)]
pub struct AttemptPage {
    /// The newest first.
    pub attempts: Vec<EndedAttempt>,
    /// The value for [`AttemptQuery::before`] with which the next page is read; `None` at the
    /// end.
    pub next: Option<u64>,
}

/// An attempt that has ended.
#[derive(Clone, Debug)]
pub struct EndedAttempt {
    /// The event's id.
    pub id: EventId,
    /// The fields of the event that are known; empty if the event is no longer stored.
    pub about: EventSummary,
    /// The attempt, with its route and its record.
    pub step: StoryStep,
    /// Its place in the queue's history: the value of [`AttemptQuery::before`] with which a page
    /// begins with this attempt, or with those beside it at the same place. Attempts that end
    /// later do not change it.
    pub place: u64,
}

/// Longest ref in the history, in bytes: a body may be one ref of megabytes, and a page has a
/// thousand attempts. A longer ref is cut.
pub const MAX_REF: usize = 1024;

/// The fields by which people recognize an event. Refs are cut to [`MAX_REF`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventSummary {
    /// The event's name.
    pub name: String,
    /// The event's account.
    pub account: String,
    /// `<entityType>/<entityRef>`.
    pub entity: Option<String>,
    /// The ref of the root entity.
    pub root_ref: Option<String>,
}

impl EventSummary {
    /// Takes the fields from `event`.
    pub fn of(event: &Event) -> Self {
        Self {
            name: event.name().to_owned(),
            account: event.account().to_owned(),
            entity: entity(event),
            root_ref: event.fields().root_entity_ref.as_deref().map(cut),
        }
    }

    /// Whether `reference` is the entity ref or the root entity ref, compared up to [`MAX_REF`].
    pub fn is_of(&self, reference: &str) -> bool {
        let reference = &*cut(reference);
        let entity = self
            .entity
            .as_deref()
            .and_then(|entity| entity.split_once('/'));
        entity.is_some_and(|(_, found)| found == reference)
            || self.root_ref.as_deref() == Some(reference)
    }
}

/// The entity of an event as the history has it: [`Event::entity`] with both parts cut.
pub fn entity(event: &Event) -> Option<String> {
    let fields = event.fields();
    let reference = cut(fields.entity_ref.as_deref()?);
    Some(format!(
        "{}/{reference}",
        cut(fields.entity_type.as_deref().unwrap_or_default())
    ))
}

/// Cuts a text to at most [`MAX_REF`] bytes for the history, and ends a text that was cut with an
/// ellipsis.
pub fn cut(text: &str) -> String {
    const MORE: &str = "…";
    if text.len() <= MAX_REF {
        return text.to_owned();
    }
    format!(
        "{}{MORE}",
        &text[..text.floor_char_boundary(MAX_REF - MORE.len())]
    )
}

impl EndedAttempt {
    /// The time at which the attempt ended: its start and its duration.
    pub fn ended_at(&self) -> Timestamp {
        let record = &self.step.record;
        record
            .started_at
            .saturating_add(record.took)
            .unwrap_or(Timestamp::MAX)
    }
}

impl AttemptQuery {
    /// Whether an attempt passes every filter. `before` and `limit` are not compared.
    pub fn matches(&self, attempt: &EndedAttempt) -> bool {
        let EndedAttempt { about, step, .. } = attempt;
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        let ended = attempt.ended_at();
        is(&self.route, &step.route)
            && is(&self.event, &about.name)
            && is(&self.account, &about.account)
            && self
                .reference
                .as_deref()
                .is_none_or(|reference| about.is_of(reference))
            && self
                .outcome
                .is_none_or(|outcome| outcome == step.record.outcome)
            && self
                .status
                .is_none_or(|status| step.record.status == Some(status))
            && self.since.is_none_or(|since| ended >= since)
            && self.until.is_none_or(|until| ended < until)
    }
}
