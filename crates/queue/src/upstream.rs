//! The role that a queue has for a spool before it: copies are given up here only for what is
//! known to be there.

use std::time::Duration;

use event_model::{Event, EventId};
use futures::future::BoxFuture;

use crate::{Intake, Lifecycle, Position, QueueError, Receipt, SpoolMark};

/// An intake that can be asked later whether it still has what it acknowledged.
///
/// ```
/// use event_model::Event;
/// use queue::{Presence, QueueError, Receipt, Upstream};
///
/// /// Stores an event where it is known to be afterwards, also if only its id was still known.
/// async fn store(upstream: &dyn Upstream, event: &Event) -> Result<Receipt, QueueError> {
///     let receipt = upstream.publish(event.clone()).await?;
///     match upstream.presence(receipt.position, event.id()).await? {
///         Presence::Missing => upstream.republish(event.clone().refed()).await,
///         Presence::Present | Presence::Removed => Ok(receipt),
///     }
/// }
/// ```
pub trait Upstream: Intake + Lifecycle {
    /// Stores events so that none overtakes another of its entity: what comes
    /// after one that failed is not stored, or is a duplicate when it comes again.
    fn publish_many<'a>(&'a self, events: &'a [Event]) -> BoxFuture<'a, Published> {
        Box::pin(async move {
            let mut published = Published::default();
            for event in events {
                match self.publish(event.clone()).await {
                    Ok(receipt) => published.receipts.push(receipt),
                    Err(error) => return Published { error: Some(error), ..published },
                }
            }
            published
        })
    }

    /// Whether the event `id` is at `position`: what a copy elsewhere may be given up for.
    fn presence(&self, position: Position, id: EventId) -> BoxFuture<'_, Result<Presence, QueueError>>;

    /// Stores an event once more whose id is known, and which is no longer there.
    fn republish(&self, event: Event) -> BoxFuture<'_, Result<Receipt, QueueError>>;

    /// The newest position, and the epoch in which positions count.
    fn horizon(&self) -> BoxFuture<'_, Result<Horizon, QueueError>>;

    /// Remembers, durably, how far the spool `id` is drained. Nobody takes for lost what may
    /// still be in it.
    fn note_spool<'a>(&'a self, id: &'a str, mark: &'a SpoolMark) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Forgets a spool that will never be opened again.
    fn forget_spool<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), QueueError>>;
}

const _: fn(&dyn Upstream) = |_| {};

/// Whether an event is where it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is there.
    Present,
    /// The queue begins after that position: the event was settled by every route and
    /// removed, or the queue has lost its beginning. The former takes at least
    /// [`REMOVED_AFTER`].
    Removed,
    /// It is not there, or something else is.
    Missing,
}

/// How long a queue keeps an event at least that has a spool before it: whoever has settled
/// the event, and however crowded the queue is.
pub const REMOVED_AFTER: Duration = Duration::from_hours(1);

/// What became of events that were published together.
#[derive(Debug, Default)]
pub struct Published {
    /// Of the first so many.
    pub receipts: Vec<Receipt>,
    /// Why the others were not stored.
    pub error: Option<QueueError>,
}

/// How far a queue reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// Changes when the store is made anew, and positions start over.
    pub epoch: String,
    /// The newest position; [`Position::START`] where there is none.
    pub last: Position,
}
