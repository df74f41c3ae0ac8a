//! The role that a gateway has: whatever arrives is made durable, or refused.

use std::fmt;
use std::sync::Arc;

use event_model::Event;
use futures::future::BoxFuture;

use crate::{Position, Quarantined, QueueError, RefusedWebhook};

/// Where arrivals are made durable.
///
/// ```
/// use event_model::Event;
/// use queue::{Intake, QueueError};
///
/// /// What a sender is answered.
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

    /// Keeps a genuine body that is not an event. When this returns `Ok`, a crash does not
    /// lose it. The same bytes under the same key are kept once.
    fn quarantine(&self, body: Quarantined) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Keeps a webhook that was refused and may have been refused wrongly; the same bytes with
    /// the same headers once. The oldest make room.
    fn capture_rejected(&self, webhook: RefusedWebhook) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Whether a publish is likely to succeed now: what makes a gateway ready.
    fn has_room(&self) -> bool;

    /// From now on, `heard` is called with every event that reached the queue after it was
    /// answered for. It must not block. Only a spool has such events.
    fn on_forwarded(&self, heard: OnForwarded) {
        drop(heard);
    }
}

const _: fn(&dyn Intake) = |_| {};

/// Called with an event that came by way of a spool.
pub type OnForwarded = Arc<dyn Fn(&Event) + Send + Sync>;

/// Proof that an event is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// It was there before.
    pub duplicate: bool,
    /// The life of the store in which `position` counts.
    pub epoch: String,
    /// Where it is stored; rises with every new event of its shard.
    pub position: Position,
}
