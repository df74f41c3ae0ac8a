//! Options of a spool: its path, size and times.

use std::path::PathBuf;
use std::time::Duration;

/// Path of a spool, its size, and how long it stores and waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The spool's file.
    pub path: PathBuf,
    /// Largest size in bytes; when it is full, events go to the queue directly.
    pub bytes: u64,
    /// Time after its acknowledgement at which an event is confirmed: longer than the queue takes
    /// to forget what it will forget.
    pub keep: Duration,
    /// Longest time that an answer to a sender waits for the queue. It need not wait: the event
    /// is safe.
    pub wait_for_queue: Duration,
}

impl Options {
    /// Default options: 2 GiB, ten minutes, 30 ms.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            bytes: 2 << 30,
            keep: Duration::from_mins(10),
            wait_for_queue: Duration::from_millis(30),
        }
    }
}
