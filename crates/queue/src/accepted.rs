//! Accepted events, the newest first, and the query by which people list them.

use event_model::{Event, Origin, Timestamp};

use crate::EventSummary;

/// Selection of accepted events. A filter that is not set excludes nothing.
#[derive(Clone, Debug, Default)]
pub struct AcceptedQuery {
    /// Only of this name.
    pub event: Option<String>,
    /// Only of this account.
    pub account: Option<String>,
    /// Only of this entity ref or root entity ref.
    pub reference: Option<String>,
    /// Only of this origin.
    pub origin: Option<Origin>,
    /// Only events that were received at this time or later.
    pub since: Option<Timestamp>,
    /// Only events that were received before this time.
    pub until: Option<Timestamp>,
    /// Only events before this place: [`AcceptedPage::next`], or the place of an event.
    pub before: Option<u64>,
    /// Only events behind this place: nothing up to it is looked at.
    pub after: u64,
    /// Largest number of events to return.
    pub limit: usize,
    /// Most events that are looked at, however many the filter leaves out: a page can have few
    /// events, or none, although more follow.
    pub examined: usize,
}

/// A page of accepted events, with the place from which the next goes on.
#[derive(Clone, Debug, Default)]
pub struct AcceptedPage {
    /// The newest first, each with its place in the order of acceptance.
    pub events: Vec<(u64, Event)>,
    /// The value for [`AcceptedQuery::before`] with which the next page is read; `None` at the
    /// end.
    pub next: Option<u64>,
    /// Number of events in this part that are stored and can't be read: their content is damaged,
    /// so that no filter is compared with them.
    pub unreadable: u64,
}

impl AcceptedQuery {
    /// Whether an event passes every filter. Places, `limit` and `examined` are not compared.
    pub fn matches(&self, event: &Event) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        let at = event.received_at();
        is(&self.event, event.name())
            && is(&self.account, event.account())
            && self
                .reference
                .as_deref()
                .is_none_or(|reference| EventSummary::of(event).is_of(reference))
            && self.origin.is_none_or(|origin| origin == event.origin())
            && self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
    }
}
