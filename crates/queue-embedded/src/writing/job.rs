//! The type of the queue's jobs, and the store that they write to.

use rusqlite::Connection;
use sqlite_file::Jobs;

/// Marker type for the jobs of the queue.
#[derive(Debug)]
pub(crate) enum QueueJobs {}

impl Jobs for QueueJobs {
    type Store<'w> = Store<'w>;
}

/// Store of a group of jobs: the open transaction, the newest position and the time.
pub(crate) struct Store<'w> {
    pub(crate) sql: &'w Connection,
    /// The newest position assigned, also in this group.
    pub(crate) last: &'w mut u64,
    /// The time of the group, in Unix nanoseconds.
    pub(crate) now: i64,
    /// The queue's own time, for what is removed at an age.
    pub(crate) age: i64,
}
