use std::path::PathBuf;
use std::time::Duration;

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
