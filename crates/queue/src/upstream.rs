//! The role of a queue that a spool uses: the spool gives up its copy of an event only once the
//! event is known to be in the queue.

use std::time::Duration;

use event_model::{Event, EventId};
use futures::future::BoxFuture;

use crate::{Intake, Lifecycle, Position, QueueError, Receipt, SpoolWatermark};

/// An intake that can be asked later whether it still has what it acknowledged.
///
/// ```
/// use event_model::Event;
/// use fluent_queue::{Presence, QueueError, Receipt, Upstream};
///
/// /// Stores an event, and makes sure that it is there, even if only its id was still known.
/// async fn store(upstream: &dyn Upstream, event: &Event) -> Result<Receipt, QueueError> {
///     let receipt = upstream.publish(event.clone()).await?;
///     match upstream.presence(receipt.position, event.id()).await? {
///         Presence::Missing => upstream.republish(event.clone().republished()).await,
///         Presence::Present | Presence::Removed => Ok(receipt),
///     }
/// }
/// ```
pub trait Upstream: Intake + Lifecycle {
    /// Stores events so that none overtakes another of its entity: an event that follows one that
    /// failed is not stored, or is a duplicate when it comes again.
    fn publish_many<'a>(&'a self, events: &'a [Event]) -> BoxFuture<'a, PublishResults> {
        Box::pin(async move {
            let mut published = PublishResults::default();
            for event in events {
                match self.publish(event.clone()).await {
                    Ok(receipt) => published.receipts.push(receipt),
                    Err(error) => {
                        return PublishResults {
                            error: Some(error),
                            ..published
                        };
                    }
                }
            }
            published
        })
    }

    /// Whether the event `id` is at `position`: by this answer, a copy elsewhere may be given up.
    fn presence(
        &self,
        position: Position,
        id: EventId,
    ) -> BoxFuture<'_, Result<Presence, QueueError>>;

    /// Stores an event once more whose id is known, and which is no longer there.
    fn republish(&self, event: Event) -> BoxFuture<'_, Result<Receipt, QueueError>>;

    /// The newest position, and the epoch in which positions count.
    fn horizon(&self) -> BoxFuture<'_, Result<Horizon, QueueError>>;

    /// Records durably how far the spool `id` is drained. Events that may still be in it are not
    /// taken for lost.
    fn note_spool<'a>(
        &'a self,
        id: &'a str,
        mark: &'a SpoolWatermark,
    ) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Forgets a spool that will never be opened again.
    fn forget_spool<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<(), QueueError>>;
}

const _: fn(&dyn Upstream) = |_| {};

/// Presence of an event at the position where it was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The event is there.
    Present,
    /// The queue begins after that position: the event was settled by every route and removed, or
    /// the queue has lost its beginning. Removal takes at least [`REMOVED_AFTER`] after the event
    /// was stored.
    Removed,
    /// The event is not there, or another event is.
    Missing,
}

/// Shortest time for which a queue with a spool before it stores an event, even if every route
/// has settled it and however full the queue is.
pub const REMOVED_AFTER: Duration = Duration::from_hours(1);

/// Result of publishing several events together.
#[derive(Debug, Default)]
pub struct PublishResults {
    /// Receipts of the events that were stored: the first ones, in order.
    pub receipts: Vec<Receipt>,
    /// The reason why the remaining events were not stored.
    pub error: Option<QueueError>,
}

/// The reach of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// The epoch; changes when the store is recreated, and positions start over.
    pub epoch: String,
    /// The newest position; [`Position::START`] where there is none.
    pub last: Position,
}
