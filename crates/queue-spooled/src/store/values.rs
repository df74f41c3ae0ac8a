//! What is said of a spool and its rows.

use event_model::{Event, EventId, Timestamp};
use queue::{Position, QueueError};

/// One event that was kept.
#[derive(Debug)]
pub struct Kept {
    /// Names it here; rises in the order in which events were kept.
    pub row: i64,
    /// It was here before.
    pub is_duplicate: bool,
}

/// Where the queue says that it stored a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The row.
    pub row: i64,
    /// The life of the queue in which the position counts.
    pub epoch: String,
    /// Where.
    pub position: Position,
}

/// A row that waits to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    /// Whose it is.
    pub id: EventId,
    /// Where it should be.
    pub at: Acknowledged,
    /// When the queue said so.
    pub acknowledged_at: Timestamp,
    /// Where it stands among the unconfirmed: what the next look goes on from.
    pub place: (i64, i64),
}

/// How much there is, and of what kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolState {
    /// Not yet acknowledged by the queue.
    pub unsent: u64,
    /// Acknowledged, and not yet read back.
    pub unconfirmed: u64,
    /// Refused by the queue for what they are.
    pub set_aside: u64,
    /// Bodies that are not events.
    pub quarantined: u64,
    /// Bytes of all of these.
    pub bytes: u64,
    /// When the oldest unsent one arrived.
    pub oldest_unsent: Option<Timestamp>,
}

/// Who is told of every event that was kept, in order, on the spool's thread:
/// must not block.
pub type OnKept<W> = Box<dyn Fn(i64, Event, W) + Send + Sync>;

pub(crate) fn unreadable(error: rusqlite::Error) -> QueueError {
    QueueError::unavailable("reading the spool", error)
}
