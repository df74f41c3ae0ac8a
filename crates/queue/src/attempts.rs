//! Attempts that have ended, as people ask for them.

use event_model::{Event, EventId, Timestamp};

use crate::{Outcome, StoryStep};

/// Which attempts. What is not set leaves out nothing.
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
    /// Only those that ended so.
    pub outcome: Option<Outcome>,
    /// Ended then, or later.
    pub since: Option<Timestamp>,
    /// Ended before that.
    pub until: Option<Timestamp>,
    /// Older than the page before: its [`AttemptPage::next`]. No [`Position`](crate::Position):
    /// each queue counts here as its history is ordered, by times or by places in another log.
    pub before: Option<u64>,
    /// About so many. A page can have fewer, or none, with more behind it: so much
    /// was looked through.
    pub limit: usize,
}

/// Some attempts, and where to go on.
#[derive(Clone, Debug, Default)]
pub struct AttemptPage {
    /// The newest first.
    pub attempts: Vec<EndedAttempt>,
    /// For [`AttemptQuery::before`]; `None` at the end.
    pub next: Option<u64>,
}

/// One attempt that has ended.
#[derive(Clone, Debug)]
pub struct EndedAttempt {
    /// Whose it was.
    pub id: EventId,
    /// What is known of the event; nothing where it is no longer kept.
    pub about: About,
    /// What happened.
    pub step: StoryStep,
}

/// Longest ref that the history has, in bytes: a body may be one ref of megabytes, and a page
/// has a thousand attempts. Of a longer one it has the beginning.
pub const MAX_REF: usize = 1024;

/// What people know an event by. Refs are cut to [`MAX_REF`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The event's name.
    pub name: String,
    /// Whose it is.
    pub account: String,
    /// `<entityType>/<entityRef>`.
    pub entity: Option<String>,
    /// Of the entity that it belongs to.
    pub root_ref: Option<String>,
}

impl About {
    /// Of this event.
    pub fn of(event: &Event) -> Self {
        Self {
            name: event.name().to_owned(),
            account: event.account().to_owned(),
            entity: entity(event),
            root_ref: event.fields().root_entity_ref.as_deref().map(cut),
        }
    }

    /// Whether an entity ref or a root entity ref is this, as far as it is known.
    pub fn is_of(&self, reference: &str) -> bool {
        let reference = &*cut(reference);
        let entity = self.entity.as_deref().and_then(|entity| entity.split_once('/'));
        entity.is_some_and(|(_, found)| found == reference) || self.root_ref.as_deref() == Some(reference)
    }
}

/// The entity of an event as the history has it: [`Event::entity`], whose parts are cut.
pub fn entity(event: &Event) -> Option<String> {
    let fields = event.fields();
    let reference = cut(fields.entity_ref.as_deref()?);
    Some(format!("{}/{reference}", cut(fields.entity_type.as_deref().unwrap_or_default())))
}

/// A text as the history has it: at most [`MAX_REF`] bytes, and where it was longer, said so.
pub fn cut(text: &str) -> String {
    const MORE: &str = "…";
    if text.len() <= MAX_REF {
        return text.to_owned();
    }
    format!("{}{MORE}", &text[..text.floor_char_boundary(MAX_REF - MORE.len())])
}

impl EndedAttempt {
    /// When it ended.
    pub fn ended_at(&self) -> Timestamp {
        let record = &self.step.record;
        record.started_at.saturating_add(record.took).unwrap_or(Timestamp::MAX)
    }
}

impl AttemptQuery {
    /// Whether an attempt is one of those asked for; its place and the limit apart.
    pub fn takes(&self, attempt: &EndedAttempt) -> bool {
        let EndedAttempt { about, step, .. } = attempt;
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let ended = attempt.ended_at();
        is(&self.route, &step.route)
            && is(&self.event, &about.name)
            && is(&self.account, &about.account)
            && self.reference.as_deref().is_none_or(|reference| about.is_of(reference))
            && self.outcome.is_none_or(|outcome| outcome == step.record.outcome)
            && self.since.is_none_or(|since| ended >= since)
            && self.until.is_none_or(|until| ended < until)
    }
}
