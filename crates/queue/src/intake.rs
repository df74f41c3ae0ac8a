//! The role of a queue that a gateway uses: store durably, or refuse.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use event_model::Event;
use futures::future::BoxFuture;

use crate::{Position, Quarantined, QueueError, RejectedWebhook};

/// Stores arrivals durably.
///
/// ```
/// use event_model::Event;
/// use fluent_queue::{Intake, QueueError};
///
/// /// The status with which a sender is answered.
/// async fn accept(intake: &dyn Intake, event: Event) -> u16 {
///     match intake.publish(event).await {
///         // Only now: a crash does not lose it any more.
///         Ok(_) => 200,
///         Err(QueueError::TooLarge) => 413,
///         Err(_) => 503,
///     }
/// }
/// ```
pub trait Intake: fmt::Debug + Send + Sync {
    /// Stores `event`. When this returns `Ok`, a crash or power cut does not
    /// lose it. An id that is known within the adapter's window is stored once
    /// and answered with [`Receipt::duplicate`].
    fn publish(&self, event: Event) -> BoxFuture<'_, Result<Receipt, QueueError>>;

    /// Stores a genuine body that is not an event. When this returns `Ok`, a crash does not lose
    /// it. The same bytes under the same key are stored once.
    fn quarantine(&self, body: Quarantined) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Stores a rejected webhook, which may have been rejected wrongly; the same bytes with the
    /// same headers once. The oldest are removed to make room.
    fn capture_rejected(&self, webhook: RejectedWebhook) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Why a publish is likely to fail now, in words for people; `None` if it is likely to succeed.
    fn impediment(&self) -> Option<Impediment>;

    /// Whether a publish is likely to succeed now, by which a gateway is ready.
    fn has_room(&self) -> bool {
        self.impediment().is_none()
    }

    /// Calls `heard` from now on with every event that reached the queue after it was
    /// acknowledged to its sender. `heard` must not block. Only a spool has such events.
    fn on_forwarded(&self, heard: OnForwarded) {
        drop(heard);
    }

    /// Sets the way of bodies that were acknowledged to their sender, and for which the quarantine
    /// turns out to have no room. Only a spool has such bodies: without one, `quarantine` says so.
    fn on_quarantine_full(&self, overflow: Arc<dyn QuarantineOverflow>) {
        drop(overflow);
    }
}

const _: fn(&dyn Intake) = |_| {};

/// The reason why something can't be done now: which part is full, away or broken. Names no event
/// and no sender.
pub type Impediment = Cow<'static, str>;

/// Callback for an event that came to the queue by way of a spool.
pub type OnForwarded = Arc<dyn Fn(&Event) + Send + Sync>;

/// The way of a genuine body that has no room in the quarantine: into the store of rejected
/// webhooks. Whoever accepted the body knows how it came.
pub trait QuarantineOverflow: Send + Sync {
    /// The body as a rejected webhook, which can be verified again.
    fn rejected(&self, body: &Quarantined) -> RejectedWebhook;

    /// Tells people of a body that was stored this way. Must not block.
    fn stored(&self);
}

/// Proof that an event is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// True if the event was stored before.
    pub duplicate: bool,
    /// The epoch of the store, within which `position` counts.
    pub epoch: String,
    /// The event's position; rises with every new event of its shard.
    pub position: Position,
}
