//! What can be delivered next.

use std::sync::Arc;

use event_model::Event;
use queue::Undecided;

/// One event that can be delivered.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) position: u64,
    pub(crate) event: Arc<Event>,
    /// `None` for the first attempt; else the row that waits for its next.
    pub(crate) retry: Option<Retry>,
    /// What the route's match said, of a first attempt.
    pub(crate) matched: Option<Result<(), Undecided>>,
}

/// A delivery that was attempted before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    pub(crate) redrive: u32,
    /// Attempts made.
    pub(crate) attempt: u32,
    pub(crate) first_at: i64,
    pub(crate) deaths: u32,
    pub(crate) asks_match: bool,
    /// Attempts that asked the destination.
    pub(crate) asked: u32,
}
