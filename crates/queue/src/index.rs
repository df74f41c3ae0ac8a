//! The port of a local index, which finds events and attempts of a queue that can't be searched.

use std::fmt;

use event_model::EventId;

use crate::{Position, QueueError};

/// A log of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// Events, in the order in which they were stored.
    Events,
    /// The record of every attempt.
    Attempts,
}

/// Position up to which an index has read a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexProgress {
    /// The epoch of the log in which positions count; empty if nothing was read.
    pub life: String,
    /// The last position that was read.
    pub last: Position,
    /// Which of the indexes this is of, since each that is made anew is another one; 0 for none.
    pub generation: i64,
}

/// The part of an event that an index stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedEvent {
    /// Its position in the log.
    pub position: Position,
    /// Its id.
    pub id: EventId,
    /// Its entity's ref.
    pub entity: Option<String>,
    /// Its root entity's ref, if that is another.
    pub root: Option<String>,
    /// Fluent's own id of it.
    pub fluent: Option<String>,
}

/// The part of an attempt that an index stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedAttempt {
    /// Its position in the log; several attempts may share one.
    pub position: Position,
    /// The event's id.
    pub id: EventId,
    /// The record of the attempt, as the queue encodes it.
    pub line: Vec<u8>,
}

/// A local index of the logs of a queue that can't be searched, only read through. It is on this
/// machine's disk, lags behind the queue, and is rebuilt whenever it is missing.
///
/// Methods block for as long as the disk takes.
pub trait HistoryIndex: fmt::Debug + Send + Sync {
    /// The position up to which the log was read.
    fn known(&self, log: Log) -> Result<IndexProgress, QueueError>;

    /// Forgets everything of a log, which now has another epoch, and returns the progress of the
    /// new index. If the index is not the `known` one any more, somebody else has begun it: then
    /// this forgets nothing, and returns how far that one is.
    fn begin(
        &self,
        log: Log,
        life: &str,
        known: &IndexProgress,
    ) -> Result<IndexProgress, QueueError>;

    /// Adds the next events of the log, up to `last`. Adding an event twice stores it once. Fails
    /// if the index is of another generation by now: what was read before these is not in it.
    fn add_events(
        &self,
        generation: i64,
        events: &[IndexedEvent],
        last: Position,
    ) -> Result<(), QueueError>;

    /// Adds the next attempts of the log, up to `last`. Adding an attempt twice stores it once.
    /// Fails as [`add_events`](Self::add_events) does.
    fn add_attempts(
        &self,
        generation: i64,
        attempts: &[IndexedAttempt],
        last: Position,
    ) -> Result<(), QueueError>;

    /// Forgets everything before `first`: the queue has removed it. Fails as
    /// [`add_events`](Self::add_events) does.
    fn trim(&self, log: Log, generation: i64, first: Position) -> Result<(), QueueError>;

    /// Finds the newest events whose entity ref, root entity ref, Fluent's id, or id or its
    /// beginning is `reference`, newest first, and only those before a position. The result may
    /// have others too: the caller compares.
    fn find(
        &self,
        reference: &str,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<(Position, EventId)>, QueueError>;

    /// The encoded records of every attempt of an event, in order.
    fn attempts(&self, id: EventId) -> Result<Vec<Vec<u8>>, QueueError>;
}

const _: fn(&dyn HistoryIndex) = |_| {};
