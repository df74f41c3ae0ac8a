//! What the writing thread does for the queue beside the jobs themselves: positions, the time,
//! what others wrote, and housekeeping.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sqlite_file::{Log, Owner, quarantine, set_meta};

use crate::file::schema::{WORKING, last_position};
use crate::shared::Shared;
use crate::writing::housekeeping::Housekeeping;
use crate::writing::job::{QueueJobs, Store};
use crate::writing::queue_time::QueueTime;
use crate::writing::set_back::{self, LastLook};

/// How often the time is written with what is, in nanoseconds.
const NOTE_EVERY: i64 = 1_000_000_000;

/// How often the quarantine is summed at most, however often others write: it is read whole.
const SUM_EVERY: Duration = Duration::from_secs(1);

/// The queue, as the owner of its file.
#[derive(Debug)]
pub(crate) struct QueueOwner {
    /// The newest position given out, and what it was before this group.
    last: u64,
    before: u64,
    /// When this group began, in Unix nanoseconds.
    now: i64,
    seen_version: i64,
    /// When the quarantine is to be summed again, if it may be another's by then.
    sums_at: Option<Instant>,
    /// When it was summed.
    summed: Instant,
    /// The time that was last written.
    noted: i64,
    /// When the clock was last looked at.
    looked: LastLook,
    shared: Arc<Shared>,
    housekeeping: Housekeeping,
    time: QueueTime,
}

impl QueueOwner {
    pub(crate) fn new(last: u64, shared: Arc<Shared>, housekeeping: Housekeeping, time: QueueTime) -> Self {
        let now = shared.now();
        Self {
            last,
            before: last,
            now,
            // No version: what others wrote since the file was opened is looked at first.
            seen_version: -1,
            sums_at: None,
            // Whoever opened the file did.
            summed: Instant::now(),
            noted: i64::MIN,
            looked: LastLook::now(now),
            shared,
            housekeeping,
            time,
        }
    }

    /// Sees whether somebody else has written since this was last asked: a redrive,
    /// a release, another process. The tail reader looks for what is due, then.
    fn notice_other_writers(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        let version: i64 = sql.pragma_query_value(None, "data_version", |row| row.get(0))?;
        let now = Instant::now();
        if version != self.seen_version {
            self.shared.last.fetch_max(last_position(sql)?, Ordering::AcqRel);
            self.seen_version = version;
            self.sums_at.get_or_insert(now.max(self.summed + SUM_EVERY));
            self.shared.others_wrote.store(true, Ordering::Release);
            self.shared.wake_feeder();
        }
        if self.sums_at.is_some_and(|at| at <= now) {
            self.shared.quarantined.store(quarantine::bytes(sql)?, Ordering::Relaxed);
            (self.sums_at, self.summed) = (None, now);
        }
        Ok(())
    }

    /// What could not be moved now is moved at the next look.
    fn follow_clock(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        let looked = LastLook::now(self.shared.now());
        if let Some(by) = looked.set_back_since(self.looked) {
            set_back::follow(sql, &self.shared, by)?;
        }
        self.looked = looked;
        Ok(())
    }
}

impl Owner for QueueOwner {
    type Jobs = QueueJobs;

    fn begin<'w>(&'w mut self, sql: &'w Connection) -> rusqlite::Result<Store<'w>> {
        self.before = self.last;
        self.now = self.shared.now();
        self.notice_other_writers(sql)?;
        // A release from quarantine, by whoever, takes a position.
        self.last = self.last.max(self.shared.last.load(Ordering::Acquire));
        Ok(Store { sql, last: &mut self.last, now: self.now })
    }

    fn end(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        if self.now.saturating_sub(self.noted) >= NOTE_EVERY || self.now < self.noted {
            self.time.note(sql, self.now)?;
            self.noted = self.now;
        }
        Ok(())
    }

    fn committed(&mut self) {
        self.before = self.last;
        self.shared.last.fetch_max(self.last, Ordering::AcqRel);
    }

    fn rolled_back(&mut self) {
        self.last = self.before;
    }

    fn answered(&mut self, wakes_reader: bool) {
        if wakes_reader {
            self.shared.wake_feeder();
        }
    }

    fn housekeep(&mut self, sql: &mut Connection, log: &mut Log, now: Instant) -> rusqlite::Result<bool> {
        self.follow_clock(sql)?;
        self.notice_other_writers(sql)?;
        self.housekeeping.run(sql, &self.shared, log, now)
    }

    fn close(&mut self, sql: &Connection) {
        // Nobody runs these routes any more.
        let _ = set_meta(sql, WORKING, "[]");
        // How late it is, also after hours in which nothing was written.
        let _ = self.time.note(sql, self.shared.now());
    }
}
