//! What jobs of the queue write to.

use rusqlite::Connection;
use sqlite_file::Jobs;

/// Jobs of the queue.
#[derive(Debug)]
pub(crate) enum QueueJobs {}

impl Jobs for QueueJobs {
    type Store<'w> = Store<'w>;
}

/// What the jobs of a group have in common.
pub(crate) struct Store<'w> {
    pub(crate) sql: &'w Connection,
    /// The newest position given out, also in this group.
    pub(crate) last: &'w mut u64,
    /// Unix time in nanoseconds.
    pub(crate) now: i64,
}
