//! Webhooks that were refused and may have been refused wrongly: a key that nobody
//! has added yet looks like a forgery.

use std::fmt;
use std::time::Duration;

use event_model::{Bytes, Event, Headers, Inbound, Timestamp};
use futures::future::BoxFuture;

use crate::QueueError;

/// Most bytes of refused webhooks that are held; beyond it the oldest go.
pub const REFUSED_BYTES: u64 = 64 << 20;

/// How long they are held at most: longer than a weekend.
pub const REFUSED_FOR: Duration = Duration::from_hours(72);

/// A webhook that was answered 401, or 403 though its account is listed. Nothing in
/// it is proven: it never reaches a route but by [`RefusedHold::admit`].
#[derive(Clone)]
pub struct RefusedWebhook {
    /// Names it in commands; 0 before it is held.
    pub id: u64,
    /// What arrived, with the headers that may carry a signature.
    pub inbound: Inbound,
    /// Why, as logs and metrics have it.
    pub reason: String,
    /// The listed account that the body names; anybody can write that.
    pub account: String,
}

impl RefusedWebhook {
    /// What it costs to hold, in bytes.
    pub fn bytes(&self) -> u64 {
        let headers: usize = self.inbound.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        (self.inbound.body.len() + headers) as u64
    }

    /// Made of what a store kept.
    pub fn stored(
        id: u64,
        body: Bytes,
        headers: Headers,
        received_at: Timestamp,
        reason: String,
        account: String,
    ) -> Self {
        Self { id, inbound: Inbound { body, headers, received_at }, reason, account }
    }
}

impl fmt::Debug for RefusedWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RefusedWebhook({}, {}, {:?})", self.id, self.reason, self.inbound)
    }
}

/// How much is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusedCount {
    /// Webhooks.
    pub webhooks: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Where refused webhooks are held, within [`REFUSED_BYTES`] and [`REFUSED_FOR`].
pub trait RefusedHold: fmt::Debug + Send + Sync {
    /// Holds it; the same bytes with the same headers once. The oldest make room.
    fn hold(&self, webhook: RefusedWebhook) -> BoxFuture<'_, Result<(), QueueError>>;

    /// In order of their ids, from after the one given.
    fn list(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<RefusedWebhook>, QueueError>>;

    /// One of them.
    fn get(&self, id: u64) -> BoxFuture<'_, Result<RefusedWebhook, QueueError>>;

    /// How much is held.
    fn count(&self) -> BoxFuture<'_, Result<RefusedCount, QueueError>>;

    /// Publishes the event that it turned out to be, and holds it no longer. Both or
    /// neither.
    fn admit(&self, id: u64, event: Event) -> BoxFuture<'_, Result<(), QueueError>>;
}
