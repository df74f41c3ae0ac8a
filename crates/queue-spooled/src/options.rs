//! Where a spool is, and how much and how long it keeps.

use std::path::PathBuf;
use std::time::Duration;

/// Where the spool is, and how much and how long it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The file.
    pub path: PathBuf,
    /// Most bytes; full, events go to the queue directly.
    pub bytes: u64,
    /// How long after its acknowledgement an event is read back: longer than
    /// the queue takes to forget what it will forget.
    pub keep: Duration,
    /// How long an answer waits for the queue. It need not: the event is safe.
    pub wait_for_queue: Duration,
}

impl Options {
    /// 2 GiB, ten minutes, 30 ms.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            bytes: 2 << 30,
            keep: Duration::from_mins(10),
            wait_for_queue: Duration::from_millis(30),
        }
    }
}
