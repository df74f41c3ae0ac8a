//! Values that describe a spool and its rows.

use event_model::{Event, EventId, Timestamp};
use queue::{Position, QueueError};

/// Result of storing an event.
#[derive(Debug)]
pub struct StoredRow {
    /// The event's row in the spool; rises in the order in which events were stored.
    pub row: i64,
    /// True if the event was stored before.
    pub is_duplicate: bool,
}

/// Acknowledgement of a row by the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcknowledgedRow {
    /// The row.
    pub row: i64,
    /// The epoch of the queue in which the position counts.
    pub epoch: String,
    /// The position in the queue.
    pub position: Position,
}

/// A row that waits to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnconfirmedRow {
    /// The event's id.
    pub id: EventId,
    /// The acknowledgement, with the position where the event should be.
    pub at: AcknowledgedRow,
    /// The time of the acknowledgement.
    pub acknowledged_at: Timestamp,
    /// Key among the unconfirmed rows, from which the next page goes on.
    pub place: (i64, i64),
}

/// Number of rows in a spool, by their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolState {
    /// Rows that the queue has not acknowledged yet.
    pub unsent: u64,
    /// Rows that were acknowledged, and are not confirmed yet.
    pub unconfirmed: u64,
    /// Rows that are unsendable: the queue refuses them for good, or they are damaged.
    pub set_aside: u64,
    /// Bodies that are not events.
    pub quarantined: u64,
    /// Bytes of all of these.
    pub bytes: u64,
    /// Arrival of the oldest unsent event.
    pub oldest_unsent: Option<Timestamp>,
}

/// Callback for every new event that was stored, in order, on the spool's thread. Must not block.
pub type OnStored<W> = Box<dyn Fn(i64, Event, W) + Send + Sync>;

pub(crate) fn unreadable(error: rusqlite::Error) -> QueueError {
    QueueError::unavailable("reading the spool", error)
}
