//! SQLite's write-ahead log beside a file: checkpointed once it is long, and truncated if it grew
//! because of a long reader.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use crate::connection::{BUSY, CHECKPOINT_BYTES};
use crate::paths::beside;
use crate::status::FileStatus;

/// Length of the log, in pages of 4 KiB, from which it is checkpointed.
const CHECKPOINT_PAGES: i32 = 4096;

/// Groups between two tries, since a reader may keep the log from being checkpointed.
const CHECKPOINT_EVERY: u64 = 16;

/// Size of a log, in bytes, that checkpoints alone do not explain: a reader does not end.
const LONG_LOG: u64 = 4 * CHECKPOINT_BYTES;

/// Longest wait of a checkpoint for readers to end, so that the log can begin again.
pub(crate) const FOR_READERS: Duration = Duration::from_millis(50);

/// The log of a file that is being served.
#[derive(Debug, Default)]
pub struct Log {
    /// Pages of the log that were not in the file yet after the last commit.
    pages: Arc<AtomicI32>,
    groups: u64,
    has_alarmed: bool,
}

impl Log {
    /// Makes SQLite report the length of the log. The size of the log's file does not tell it,
    /// since a log that was long once is written from its beginning again.
    pub(crate) fn follow(sql: &mut Connection) -> rusqlite::Result<Self> {
        let log = Self::default();
        let pages = Arc::clone(&log.pages);
        sql.wal_hook(Some(move |_: &mut Wal, count| {
            pages.store(count, Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(log)
    }

    /// Checkpoints the log once it is long. An error is final: a second try could succeed without
    /// having written.
    pub(crate) fn checkpoint(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        self.groups += 1;
        let is_due = self.groups.is_multiple_of(CHECKPOINT_EVERY);
        match is_due && self.pages.load(Ordering::Relaxed) >= CHECKPOINT_PAGES {
            true => sql.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())),
            false => Ok(()),
        }
    }

    /// Writes all of a log that was removed into the file. Returns whether nothing is left in it,
    /// as it is while a reader still needs some of it.
    pub(crate) fn save(sql: &Connection) -> rusqlite::Result<bool> {
        sql.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            let (is_busy, pages, written): (bool, i64, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(!is_busy && written == pages)
        })
    }

    /// Writes the log into the file, so that the next group uses its room anew. `false` if it is
    /// empty, or a reader needs it. An error is final, as that of [`Log::checkpoint`].
    pub(crate) fn make_room(&self, sql: &Connection) -> rusqlite::Result<bool> {
        if self.pages.load(Ordering::Relaxed) == 0 {
            return Ok(false);
        }
        let is_empty = Self::save(sql)?;
        if is_empty {
            self.pages.store(0, Ordering::Relaxed);
        }
        Ok(is_empty)
    }

    /// Truncates the log if it has become long, or if it fills a file that `is_full`, unless a
    /// reader uses it. Returns its length before, in bytes.
    ///
    /// # Errors
    /// If SQLite reports an error.
    pub fn shorten(
        &mut self,
        sql: &Connection,
        status: &FileStatus,
        is_full: bool,
    ) -> rusqlite::Result<u64> {
        let length = log_bytes(status.path());
        let is_long = length > LONG_LOG;
        if is_long || (is_full && length > CHECKPOINT_BYTES) {
            sql.busy_timeout(FOR_READERS)?;
            // A full file gets no writes by which its log would become shorter.
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

/// Bytes by which the log is longer than it should be, because a reader does not end.
pub fn beyond_a_checkpoint(path: &Path) -> u64 {
    log_bytes(path).saturating_sub(CHECKPOINT_BYTES)
}

fn log_bytes(path: &Path) -> u64 {
    std::fs::metadata(beside(path, "-wal")).map_or(0, |metadata| metadata.len())
}
