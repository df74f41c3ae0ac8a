//! Spools' files that this process does not serve: beside who does, or set aside.

use std::path::Path;

use event_model::{Event, Timestamp};
use queue::{Quarantined, QueueError};
use rusqlite::Connection;
use sqlite_file::{connect, meta, quarantine};

use crate::store::rows;
use crate::store::values::{SpoolState, unreadable};

/// A spool's file that was set aside, to be read row by row: a bad page costs
/// what is on it and no more.
#[derive(Debug)]
pub(crate) struct DamagedSpool(Connection);

impl DamagedSpool {
    /// Opens it. It is not changed.
    pub(crate) fn open(path: &Path) -> Result<Self, QueueError> {
        connect(path).map(Self).map_err(unreadable)
    }

    /// What names it, as far as that can be read.
    pub(crate) fn id(&self) -> Option<String> {
        meta(&self.0, "epoch").ok().flatten()
    }

    /// Its highest row.
    pub(crate) fn last(&self) -> Result<i64, QueueError> {
        rows::last(&self.0).map_err(unreadable)
    }

    /// The next row that there is, from this one on; this one where that can't be read.
    pub(crate) fn next(&self, row: i64) -> i64 {
        rows::next(&self.0, row).ok().flatten().unwrap_or(row)
    }

    /// One event, whatever became of it; `None` where nothing can be read.
    pub(crate) fn event(&self, row: i64) -> Result<Option<Event>, QueueError> {
        let found = rows::one(&self.0, row).map_err(unreadable)?.transpose();
        found.map_err(|error| QueueError::unavailable("reading a row of the spool", error))
    }

    /// Its bodies that are not events, as far as they can be read.
    pub(crate) fn bodies(&self) -> Vec<Quarantined> {
        quarantine::list(&self.0, 0, usize::MAX).unwrap_or_default()
    }
}

/// How many events the queue does not have yet, and when the oldest of them came in:
/// looked up beside whoever serves the file.
pub(crate) fn spool_backlog(path: &Path) -> Result<(u64, Option<Timestamp>), QueueError> {
    let read = || rows::backlog(&connect(path)?);
    read().map_err(unreadable)
}

/// The time up to which everything that came is in the queue, and whether that is all;
/// nothing where so much waits that it would take long to say. Looked up beside whoever
/// serves the file.
pub(crate) fn spool_sent_up_to(path: &Path, now: Timestamp) -> Result<Option<(Timestamp, bool)>, QueueError> {
    /// A look of a few milliseconds.
    const MOST: u64 = 20_000;
    let read = || -> rusqlite::Result<_> {
        let sql = connect(path)?;
        let (unsent, _) = rows::backlog(&sql)?;
        Ok(rows::sent_up_to(&sql, now, MOST)?.map(|up_to| (up_to, unsent == 0)))
    };
    read().map_err(unreadable)
}

/// Looks into a spool's file beside whoever serves it.
pub fn spool_state(path: &Path) -> Result<SpoolState, QueueError> {
    let read = || rows::state(&connect(path)?);
    read().map_err(unreadable)
}
