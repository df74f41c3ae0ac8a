//! The spool's part of the writing thread, beside the jobs: it measures the file.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_model::Clock;
use rusqlite::Connection;
use sqlite_file::rows::nanos;
use sqlite_file::{FileStatus, Log, Owner, beyond_a_checkpoint, used_bytes};

use crate::store::fill_level::Level;
use crate::store::jobs::{SpoolJobs, Store};
use crate::store::spool_time::SpoolTime;

/// Interval between two measurements of the file, by which removals make room.
const WEIGH: Duration = Duration::from_secs(1);

/// Interval between two records of the time while something is written.
const NOTE: Duration = Duration::from_secs(1);

/// Part of the limit, in percent, from which an error is logged.
const ALARM_PERCENT: u64 = 70;

/// The spool, as the owner of its file.
pub(crate) struct SpoolOwner {
    level: Arc<Level>,
    status: Arc<FileStatus>,
    time: Arc<SpoolTime>,
    /// When the time is to be recorded again.
    next_note: Instant,
    next_weighing: Instant,
    has_alarmed: bool,
}

impl SpoolOwner {
    pub(crate) fn new(level: Arc<Level>, status: Arc<FileStatus>, time: Arc<SpoolTime>) -> Self {
        Self {
            level,
            status,
            time,
            next_note: Instant::now(),
            next_weighing: Instant::now(),
            has_alarmed: false,
        }
    }
}

impl Owner for SpoolOwner {
    type Jobs = SpoolJobs;

    fn begin<'w>(&'w mut self, sql: &'w Connection) -> rusqlite::Result<Store<'w>> {
        Ok(Store {
            sql,
            now: nanos(self.time.now()),
            is_full: self.level.is_reached(),
        })
    }

    fn end(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        if Instant::now() < self.next_note {
            return Ok(());
        }
        self.time.note(sql)?;
        self.next_note = Instant::now() + NOTE;
        Ok(())
    }

    fn close(&mut self, sql: &Connection) {
        let _ = self.time.note(sql);
    }

    fn housekeep(
        &mut self,
        sql: &mut Connection,
        log: &mut Log,
        now: Instant,
    ) -> rusqlite::Result<bool> {
        if now < self.next_weighing {
            return Ok(false);
        }
        self.next_weighing = now + WEIGH;
        log.shorten(sql, &self.status, self.level.is_full())?;
        // The part of the log that a reader keeps from being checkpointed is used space.
        let used = used_bytes(sql)? + beyond_a_checkpoint(self.status.path());
        let limit = self.level.limit;
        let is_high = used.saturating_mul(100) >= limit.saturating_mul(ALARM_PERCENT);
        if is_high && !self.has_alarmed {
            tracing::error!(
                used,
                limit,
                "the spool is over {ALARM_PERCENT} % of its bytes"
            );
        }
        self.has_alarmed = is_high;
        self.level.set(used);
        Ok(false)
    }
}
