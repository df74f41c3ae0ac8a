use std::fmt;

use event_model::EventId;

use crate::{Position, QueueError};

/// Which of a queue's logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// Events, in the order in which they were stored.
    Events,
    /// What happened in every attempt.
    Attempts,
}

/// How far an index has read a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The life of the log in which places count; empty where nothing was read.
    pub life: String,
    /// The last place that was read.
    pub last: Position,
}

/// An event, as an index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedEvent {
    /// Its place in the log.
    pub position: Position,
    /// Its id.
    pub id: EventId,
    /// Its entity's ref.
    pub entity: Option<String>,
    /// Its root entity's ref, where that is another.
    pub root: Option<String>,
    /// Fluent's own id of it.
    pub fluent: Option<String>,
}

/// An attempt, as an index has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedAttempt {
    /// Its place in the log; several may share one.
    pub position: Position,
    /// The event's id.
    pub id: EventId,
    /// The rest, as the queue writes it.
    pub line: Vec<u8>,
}

/// Where to look up what happened in a queue that can only be read through: on this
/// machine's disk, behind the queue, and made again whenever it is gone.
///
/// Methods block, for as long as a disk takes.
pub trait HistoryIndex: fmt::Debug + Send + Sync {
    /// How far it is.
    fn known(&self, log: Log) -> Result<Known, QueueError>;

    /// Forgets everything of a log, whose life is another one now.
    fn begin(&self, log: Log, life: &str) -> Result<(), QueueError>;

    /// Adds what follows in the log, up to `last`. Added twice, it is there once.
    fn add_events(&self, events: &[IndexedEvent], last: Position) -> Result<(), QueueError>;

    /// Adds what follows in the log, up to `last`. Added twice, it is there once.
    fn add_attempts(&self, attempts: &[IndexedAttempt], last: Position) -> Result<(), QueueError>;

    /// Forgets what is before `first`: the queue has removed it.
    fn trim(&self, log: Log, first: Position) -> Result<(), QueueError>;

    /// The newest events whose entity ref, root entity ref, Fluent's id, id or its beginning is
    /// `reference`, newest first. Perhaps others too: whoever asks compares.
    fn find(&self, reference: &str, limit: usize) -> Result<Vec<(Position, EventId)>, QueueError>;

    /// The lines of every attempt of an event, in order.
    fn attempts(&self, id: EventId) -> Result<Vec<Vec<u8>>, QueueError>;
}

const _: fn(&dyn HistoryIndex) = |_| {};
