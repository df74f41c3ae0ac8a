//! Deliveries that can be handed out next.

use std::sync::Arc;

use event_model::Event;
use queue::ConditionError;

/// One delivery that can be handed out.
#[derive(Clone, Debug)]
pub(crate) struct ReadyDelivery {
    pub(crate) position: u64,
    pub(crate) event: Arc<Event>,
    /// `None` for a first attempt; otherwise the row that waits for its next attempt.
    pub(crate) retry: Option<Retry>,
    /// Result of the route's match, for a first attempt.
    pub(crate) matched: Option<Result<(), ConditionError>>,
}

/// A delivery that was attempted before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    pub(crate) redrive: u32,
    /// Number of attempts made.
    pub(crate) attempt: u32,
    pub(crate) deaths: u32,
    pub(crate) asks_match: bool,
    /// Number of attempts that asked the destination.
    pub(crate) asked: u32,
}
