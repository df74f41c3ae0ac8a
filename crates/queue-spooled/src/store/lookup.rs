//! Reading spool files that this process does not serve: another process's, or damaged ones.

use std::path::Path;

use event_model::{Event, Timestamp};
use queue::{Quarantined, QueueError};
use rusqlite::Connection;
use sqlite_file::quarantine::ReadableBodies;
use sqlite_file::{CopyError, connect, meta};

use crate::store::file_kind::SPOOL;
use crate::store::rows;
use crate::store::values::{SpoolState, unreadable};

/// A damaged spool file, read row by row: a damaged page costs only what is on it.
#[derive(Debug)]
pub(crate) struct DamagedSpool(Connection);

impl DamagedSpool {
    /// Opens the file without changing it.
    pub(crate) fn open(path: &Path) -> Result<Self, QueueError> {
        connect(path).map(Self).map_err(unreadable)
    }

    /// The id of the file, if it can be read.
    pub(crate) fn id(&self) -> Option<String> {
        meta(&self.0, "epoch").ok().flatten()
    }

    /// The highest row.
    pub(crate) fn last(&self) -> Result<i64, QueueError> {
        rows::last(&self.0).map_err(unreadable)
    }

    /// The next existing row, from `row` on; `row` itself if that can't be read.
    pub(crate) fn next(&self, row: i64) -> i64 {
        rows::next(&self.0, row).ok().flatten().unwrap_or(row)
    }

    /// The event of a row, whatever its state; `None` if there is no such row.
    pub(crate) fn event(&self, row: i64) -> Result<Option<Event>, QueueError> {
        let found = rows::one(&self.0, row).map_err(unreadable)?.transpose();
        found.map_err(|error| QueueError::unavailable("reading a row of the spool", error))
    }

    /// Begins to read the bodies that are not events.
    pub(crate) fn bodies(&self) -> ReadableBodies {
        ReadableBodies::begin(&self.0)
    }

    /// The next of these bodies.
    pub(crate) fn next_body(&self, bodies: &mut ReadableBodies) -> Option<Quarantined> {
        bodies.next(&self.0)
    }
}

/// Number of events that the queue does not have yet, and the arrival of the oldest. Reads beside
/// the process that serves the file.
pub(crate) fn spool_backlog(path: &Path) -> Result<(u64, Option<Timestamp>), QueueError> {
    let read = || rows::backlog(&connect(path)?);
    read().map_err(unreadable)
}

/// The time up to which everything that arrived is in the queue, and whether nothing is left.
/// `None` if so much waits that reading it would take long. Reads beside the process that serves
/// the file.
pub(crate) fn spool_sent_up_to(
    path: &Path,
    now: Timestamp,
) -> Result<Option<(Timestamp, bool)>, QueueError> {
    /// Rows that can be read in a few milliseconds.
    const MOST: u64 = 20_000;
    let read = || -> rusqlite::Result<_> {
        let sql = connect(path)?;
        let (unsent, _) = rows::backlog(&sql)?;
        Ok(rows::sent_up_to(&sql, now, MOST)?.map(|up_to| (up_to, unsent == 0)))
    };
    read().map_err(unreadable)
}

/// Copies a spool's file at `from`, as it is at one moment, to `to`, beside the process that
/// serves it. The copy has the same id, so that what it still holds counts as this spool's.
///
/// # Errors
/// If the file can't be read, or the copy not written; there is no copy then.
pub fn backup(from: &Path, to: &Path) -> Result<SpoolState, CopyError> {
    sqlite_file::copy(from, &SPOOL, to, rows::state)
}

/// Reads the state of a spool's file beside the process that serves it.
pub fn spool_state(path: &Path) -> Result<SpoolState, QueueError> {
    let read = || rows::state(&connect(path)?);
    read().map_err(unreadable)
}
