//! Options of a queue's file: its path, dedup window and retention.

use std::path::PathBuf;
use std::time::Duration;

/// Approximate bytes in the file for an event of which only the id is left.
pub(crate) const ID_BYTES: u64 = 100;

/// Ids are removed early if they take more than this fraction (one in four) of the file's limit.
pub(crate) const IDS_SHARE: u64 = 4;

/// Path of the file, and how long it stores ids and events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The database file; `-wal`, `-shm` and `.lock` are beside it.
    pub path: PathBuf,
    /// Time for which an id is known after its event arrived.
    pub dedup_window: Duration,
    /// Bounds on events that every route has settled.
    pub retention: Retention,
}

/// Bounds on the settled events that are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Settled events older than this are removed.
    pub age: Duration,
    /// Size of the file above which the oldest settled events are removed; if unsettled ones fill
    /// it, the queue refuses new events.
    pub bytes: u64,
}

impl Retention {
    /// Largest sustained rate, in events a second, at which ids are known for the whole window.
    /// At a higher rate ids take the space of events, and the oldest are removed early.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use fluent_queue_embedded::Retention;
    ///
    /// let retention = Retention { age: Duration::from_hours(168), bytes: 10 << 30 };
    /// assert_eq!(retention.rate_held(Duration::from_hours(72)).round(), 104.0);
    /// ```
    pub fn rate_held(&self, window: Duration) -> f64 {
        let ids = self.bytes / IDS_SHARE / ID_BYTES;
        ids as f64 / window.as_secs_f64()
    }
}

impl Options {
    /// Default options: three days of ids, seven days or 10 GiB of events.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        const DAY: Duration = Duration::from_hours(24);
        Self {
            path: path.into(),
            dedup_window: DAY * 3,
            retention: Retention {
                age: DAY * 7,
                bytes: 10 << 30,
            },
        }
    }
}
