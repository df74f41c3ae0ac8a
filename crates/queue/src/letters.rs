//! Dead letters: deliveries that no further attempt can help, and the port to list, redrive and
//! discard them.

use std::fmt;

use event_model::{Event, Timestamp};
use futures::future::BoxFuture;

use crate::{DeadReason, QueueError};

/// A delivery that no further attempt can help, kept for a person.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The number by which commands name it; rises with time.
    pub id: u64,
    /// The route of the delivery.
    pub route: String,
    /// The event, whole.
    pub event: Event,
    /// The reason for which it became a dead letter.
    pub reason: DeadReason,
    /// The last failure in words.
    pub detail: Option<String>,
    /// Number of attempts that were made.
    pub attempts: u32,
    /// The time at which it became a dead letter.
    pub at: Timestamp,
    /// The number of the redrive or replay that it came from; 0 for none.
    pub redrive: u32,
}

/// Approximate limit on the bytes of bodies in one page, however many letters were asked for. A
/// page that is cut short by it is never empty.
pub const PAGE_BYTES: usize = 16 << 20;

/// Selection of dead letters. A filter that is not set excludes nothing.
#[derive(Clone, Debug)]
pub struct DeadQuery {
    /// Only of this route.
    pub route: Option<String>,
    /// Only of other routes than this one.
    pub not_route: Option<String>,
    /// Only of this entity ref or root entity ref.
    pub reference: Option<String>,
    /// Only of events of this name.
    pub event: Option<String>,
    /// Only of this account.
    pub account: Option<String>,
    /// Only for this reason.
    pub reason: Option<DeadReason>,
    /// Only letters that became dead at this time or later.
    pub since: Option<Timestamp>,
    /// Only letters that became dead before this time.
    pub until: Option<Timestamp>,
    /// Only letters with a higher id than this.
    pub after: u64,
    /// Only letters with this id or a lower one.
    pub up_to: u64,
    /// Largest number of letters to return.
    pub limit: usize,
}

impl Default for DeadQuery {
    fn default() -> Self {
        Self {
            route: None,
            not_route: None,
            reference: None,
            event: None,
            account: None,
            reason: None,
            since: None,
            until: None,
            after: 0,
            up_to: u64::MAX,
            limit: 0,
        }
    }
}

impl DeadQuery {
    /// Whether a letter passes every filter. The ids and `limit` are not compared.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        let fields = letter.event.fields();
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        let names = |reference: &String| {
            [&fields.entity_ref, &fields.root_entity_ref]
                .into_iter()
                .flatten()
                .any(|found| found == reference)
        };
        is(&self.route, &letter.route)
            && self
                .not_route
                .as_ref()
                .is_none_or(|route| *route != letter.route)
            && self.reference.as_ref().is_none_or(names)
            && is(&self.event, letter.event.name())
            && is(&self.account, letter.event.account())
            && self.reason.is_none_or(|reason| reason == letter.reason)
            && self.since.is_none_or(|since| letter.at >= since)
            && self.until.is_none_or(|until| letter.at < until)
    }
}

/// A page of letters, with the id from which the next goes on.
#[derive(Clone, Debug, Default)]
pub struct DeadPage {
    /// In order of their ids.
    pub letters: Vec<DeadLetter>,
    /// The value for [`DeadQuery::after`] with which the next page is read; `None` at the end.
    pub next: Option<u64>,
}

/// The dead letters of a queue. They never expire by age, except those of
/// [`UNROUTED`](crate::UNROUTED), which are removed with their events.
pub trait DeadLetters: fmt::Debug + Send + Sync {
    /// Lists letters in order of their ids. The page is shorter than the limit if the bodies
    /// exceed [`PAGE_BYTES`], and empty only at the end.
    fn list(&self, query: DeadQuery) -> BoxFuture<'_, Result<Vec<DeadLetter>, QueueError>>;

    /// Lists as [`DeadLetters::list`] does, and looks at `examined` letters at most, however many
    /// of them the filter leaves out. So a page can have few letters, or none, although more
    /// follow, and its cost does not grow with the number of letters.
    fn page(
        &self,
        query: DeadQuery,
        examined: usize,
    ) -> BoxFuture<'_, Result<DeadPage, QueueError>>;

    /// The highest id that a letter has had so far; 0 before the first. Whatever dies from now on
    /// has a higher one.
    fn last_id(&self) -> BoxFuture<'_, Result<u64, QueueError>>;

    /// The letter with this id.
    fn get(&self, id: u64) -> BoxFuture<'_, Result<DeadLetter, QueueError>>;

    /// Number of letters, by route.
    fn count(&self) -> BoxFuture<'_, Result<Vec<(String, u64)>, QueueError>>;

    /// Delivers each letter again with fresh attempts, to the route `to` or else to its own, and
    /// removes it here: both or neither. Returns one result for each, in order.
    fn redrive<'a>(
        &'a self,
        ids: &'a [u64],
        to: Option<&'a str>,
    ) -> BoxFuture<'a, Vec<Result<(), QueueError>>>;

    /// Removes each for good. Returns one result for each, in order.
    fn discard<'a>(&'a self, ids: &'a [u64]) -> BoxFuture<'a, Vec<Result<(), QueueError>>>;
}
