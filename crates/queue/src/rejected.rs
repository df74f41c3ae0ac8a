//! Rejected webhooks, which may have been rejected wrongly: a key that nobody has added yet looks
//! like a forgery.

use std::fmt;
use std::time::Duration;

use event_model::{Bytes, Event, Headers, Inbound, Timestamp};
use futures::future::BoxFuture;

use crate::QueueError;

/// Largest number of bytes of rejected webhooks; beyond it the oldest are removed.
pub const REFUSED_BYTES: u64 = 64 << 20;

/// Longest time that rejected webhooks are stored: longer than a weekend.
pub const REFUSED_FOR: Duration = Duration::from_hours(72);

/// A webhook that was answered 401, or 403 though its account is listed. Nothing in it is proven:
/// it reaches a route only through [`RejectedStore::admit`].
#[derive(Clone)]
pub struct RejectedWebhook {
    /// The number by which commands name it; 0 before it is stored.
    pub id: u64,
    /// The webhook as it arrived, with the headers that may carry a signature.
    pub inbound: Inbound,
    /// The reason, as in logs and metrics.
    pub reason: String,
    /// The listed account that the body names; anybody can write that.
    pub account: String,
}

impl RejectedWebhook {
    /// Bytes that it takes in the store: body and headers.
    pub fn bytes(&self) -> u64 {
        let headers: usize = self
            .inbound
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        (self.inbound.body.len() + headers) as u64
    }

    /// Makes a rejected webhook of its stored parts.
    pub fn stored(
        id: u64,
        body: Bytes,
        headers: Headers,
        received_at: Timestamp,
        reason: String,
        account: String,
    ) -> Self {
        Self {
            id,
            inbound: Inbound {
                body,
                headers,
                received_at,
            },
            reason,
            account,
        }
    }
}

impl fmt::Debug for RejectedWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RejectedWebhook({}, {}, {:?})",
            self.id, self.reason, self.inbound
        )
    }
}

/// Number and size of the rejected webhooks in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RejectedCount {
    /// Number of webhooks.
    pub webhooks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The store of rejected webhooks, bounded by [`REFUSED_BYTES`] and [`REFUSED_FOR`].
pub trait RejectedStore: fmt::Debug + Send + Sync {
    /// Stores a rejected webhook; the same bytes with the same headers once. The oldest are
    /// removed to make room.
    fn capture(&self, webhook: RejectedWebhook) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Lists webhooks in order of their ids, beginning after `after`. The page is shorter than
    /// `limit` if their [bytes](RejectedWebhook::bytes) exceed
    /// [`PAGE_BYTES`](crate::PAGE_BYTES), and empty only at the end.
    fn list(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RejectedWebhook>, QueueError>>;

    /// The webhook with this id.
    fn get(&self, id: u64) -> BoxFuture<'_, Result<RejectedWebhook, QueueError>>;

    /// Number and size of the stored webhooks.
    fn count(&self) -> BoxFuture<'_, Result<RejectedCount, QueueError>>;

    /// Publishes the event that the webhook turned out to be, and removes the webhook: both or
    /// neither.
    fn admit(&self, id: u64, event: Event) -> BoxFuture<'_, Result<(), QueueError>>;
}
