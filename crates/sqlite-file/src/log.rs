//! SQLite's log beside the file: moved into it once it is long, and begun anew where somebody
//! has read in it for so long that it grew.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use crate::connection::{BUSY, CHECKPOINT_BYTES};
use crate::paths::beside;
use crate::status::Status;

/// Pages of 4 KiB in the log from which it is moved into the file.
const CHECKPOINT_PAGES: i32 = 4096;

/// Groups between two tries: what a reader keeps from being moved is not asked for each time.
const CHECKPOINT_EVERY: u64 = 16;

/// A log of this size is longer than moving it into the file explains: somebody reads, and
/// does not end.
const LONG_LOG: u64 = 4 * CHECKPOINT_BYTES;

/// How long a checkpoint waits for readers to end, so that the log begins anew.
pub(crate) const FOR_READERS: Duration = Duration::from_millis(50);

/// The log of a file that is being served.
#[derive(Debug, Default)]
pub struct Log {
    /// Pages of the log that are not in the file yet, after the last commit.
    pages: Arc<AtomicI32>,
    groups: u64,
    has_alarmed: bool,
}

impl Log {
    /// Is told by SQLite how long the log is. Its file says that no more once it has been long:
    /// it is written from its beginning again.
    pub(crate) fn follow(sql: &mut Connection) -> rusqlite::Result<Self> {
        let log = Self::default();
        let pages = Arc::clone(&log.pages);
        sql.wal_hook(Some(move |_: &mut Wal, count| {
            pages.store(count, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(log)
    }

    /// Moves the log into the file once it is long. Its errors are final: a second try could
    /// succeed without having written.
    pub(crate) fn checkpoint(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        self.groups += 1;
        let is_due = self.groups.is_multiple_of(CHECKPOINT_EVERY);
        match is_due && self.pages.load(Ordering::Relaxed) >= CHECKPOINT_PAGES {
            true => sql.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())),
            false => Ok(()),
        }
    }

    /// Begins the log anew where it has become long, or fills a file that `is_full`, if nobody
    /// reads in it. Says how long it was.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn shorten(&mut self, sql: &Connection, status: &Status, is_full: bool) -> rusqlite::Result<u64> {
        let length = log_bytes(status.path());
        let is_long = length > LONG_LOG;
        if is_long || (is_full && length > CHECKPOINT_BYTES) {
            sql.busy_timeout(FOR_READERS)?;
            // What is full writes nothing by which its log would become shorter.
            let begun = sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            sql.busy_timeout(BUSY)?;
            begun?;
        }
        if is_long && !self.has_alarmed {
            tracing::warn!(log = length, "{}", status.messages().long_log);
        }
        self.has_alarmed = is_long;
        Ok(length)
    }
}

/// By how much the log is longer than it is to be: somebody reads, and does not end.
pub fn beyond_a_checkpoint(path: &Path) -> u64 {
    log_bytes(path).saturating_sub(CHECKPOINT_BYTES)
}

fn log_bytes(path: &Path) -> u64 {
    std::fs::metadata(beside(path, "-wal")).map_or(0, |metadata| metadata.len())
}
