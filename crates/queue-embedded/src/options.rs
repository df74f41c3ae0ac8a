//! Where a queue's file is, and what it keeps.

use std::path::PathBuf;
use std::time::Duration;

/// About so much of the file is an id alone.
pub(crate) const ID_BYTES: u64 = 100;

/// Ids go before their time where they are more than this part of what the file may be.
pub(crate) const IDS_SHARE: u64 = 4;

/// Where the file is and how long it remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The database file; `-wal`, `-shm` and `.lock` lie beside it.
    pub path: PathBuf,
    /// How long an id is known after its event arrived.
    pub dedup_window: Duration,
    /// What may be removed once every route has settled it.
    pub retention: Retention,
}

/// Bounds on what is kept of settled events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Settled events older than this go.
    pub age: Duration,
    /// Above this the oldest settled events go; full of unsettled ones, the
    /// queue refuses new ones.
    pub bytes: u64,
}

impl Retention {
    /// Up to how many events a second, day and night, their ids are known for so long: more ids
    /// than that take the room of events, and the oldest go before their time.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use queue_embedded::Retention;
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
    /// Three days of ids, seven days or 10 GiB of events.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        const DAY: Duration = Duration::from_hours(24);
        Self {
            path: path.into(),
            dedup_window: DAY * 3,
            retention: Retention { age: DAY * 7, bytes: 10 << 30 },
        }
    }
}
