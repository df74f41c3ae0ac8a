//! Deliveries that no attempt can help.

use std::fmt;

use event_model::{Event, Timestamp};
use futures::future::BoxFuture;

use crate::{DeadReason, QueueError};

/// A delivery that a person must look at.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Names it in commands; rises with time.
    pub id: u64,
    /// The route it died on.
    pub route: String,
    /// The event, whole.
    pub event: Event,
    /// Why.
    pub reason: DeadReason,
    /// The last failure in words.
    pub detail: Option<String>,
    /// How many attempts were made.
    pub attempts: u32,
    /// When it became one.
    pub at: Timestamp,
    /// The number of the redrive or replay that it came from; 0 for none.
    pub redrive: u32,
}

/// About so many bytes of bodies a page has at most, however many were asked for: a
/// page that is cut short by it is never empty.
pub const PAGE_BYTES: usize = 16 << 20;

/// Which dead letters. What is not set leaves out nothing.
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
    /// Became one then, or later.
    pub since: Option<Timestamp>,
    /// Became one before that.
    pub until: Option<Timestamp>,
    /// Only those with a higher id,
    pub after: u64,
    /// and none with a higher one than this.
    pub up_to: u64,
    /// At most so many.
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
    /// Whether a letter is one of those asked for; its id and the limit apart.
    pub fn takes(&self, letter: &DeadLetter) -> bool {
        let fields = letter.event.fields();
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        let names = |reference: &String| {
            [&fields.entity_ref, &fields.root_entity_ref]
                .into_iter()
                .flatten()
                .any(|found| found == reference)
        };
        is(&self.route, &letter.route)
            && self.not_route.as_ref().is_none_or(|route| *route != letter.route)
            && self.reference.as_ref().is_none_or(names)
            && is(&self.event, letter.event.name())
            && is(&self.account, letter.event.account())
            && self.reason.is_none_or(|reason| reason == letter.reason)
            && self.since.is_none_or(|since| letter.at >= since)
            && self.until.is_none_or(|until| letter.at < until)
    }
}

/// Dead letters. They never expire by age, but for those of
/// [`UNROUTED`](crate::UNROUTED), which go with their events.
pub trait DeadLetters: fmt::Debug + Send + Sync {
    /// In order of their ids; fewer than asked for where their bodies are more than
    /// [`PAGE_BYTES`], none only at the end.
    fn list(&self, query: DeadQuery) -> BoxFuture<'_, Result<Vec<DeadLetter>, QueueError>>;

    /// One of them.
    fn get(&self, id: u64) -> BoxFuture<'_, Result<DeadLetter, QueueError>>;

    /// How many there are, by route.
    fn count(&self) -> BoxFuture<'_, Result<Vec<(String, u64)>, QueueError>>;

    /// Hands each to `to`, or to its own route, once more, with fresh attempts, and
    /// removes it from here: both or neither. Answers for each, in order.
    fn redrive<'a>(
        &'a self,
        ids: &'a [u64],
        to: Option<&'a str>,
    ) -> BoxFuture<'a, Vec<Result<(), QueueError>>>;

    /// Removes each for good. Answers for each, in order.
    fn discard<'a>(&'a self, ids: &'a [u64]) -> BoxFuture<'a, Vec<Result<(), QueueError>>>;
}
