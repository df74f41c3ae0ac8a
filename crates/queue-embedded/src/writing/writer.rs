//! The queue's part of the writing thread, beside the jobs: positions, the time, changes by other
//! processes, and housekeeping.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};
use sqlite_file::{Log, Owner, quarantine, set_meta};

use crate::file::schema::{WORKING, last_position};
use crate::shared::Shared;
use crate::writing::clock_set::{self, ClockReading, FollowPass};
use crate::writing::housekeeping::Housekeeping;
use crate::writing::job::{QueueJobs, Store};
use crate::writing::queue_time::QueueTime;
use crate::writing::recovery::take_over;

/// Interval between two records of the time, in nanoseconds.
const NOTE_EVERY: i64 = 1_000_000_000;

/// Interval between two records of the time while nothing else is written, in nanoseconds.
const NOTE_AT_REST_EVERY: i64 = 600 * 1_000_000_000;

/// Shortest interval between two sums of the quarantine, however often others write: a sum reads
/// it whole.
const SUM_EVERY: Duration = Duration::from_secs(1);

/// The queue, as the owner of its file.
#[derive(Debug)]
pub(crate) struct QueueOwner {
    /// The newest position assigned, and its value before this group.
    last: u64,
    before: u64,
    /// Start of this group, in Unix nanoseconds.
    now: i64,
    seen_version: i64,
    /// Time at which the quarantine is to be summed again, if others may have changed it.
    sums_at: Option<Instant>,
    /// The time of the last sum.
    summed: Instant,
    /// The group time at which the time was last recorded, in Unix nanoseconds.
    noted: i64,
    /// The time at which it was last recorded, in Unix nanoseconds, also when the file was opened.
    known: i64,
    /// The clock at the last check.
    looked: ClockReading,
    /// The clock at a check within this group, which counts when the group is committed.
    looked_in_group: Option<ClockReading>,
    follow_pass: FollowPass,
    take_over: TakeOver,
    shared: Arc<Shared>,
    housekeeping: Housekeeping,
    time: QueueTime,
}

impl QueueOwner {
    pub(crate) fn new(
        last: u64,
        shared: Arc<Shared>,
        housekeeping: Housekeeping,
        time: QueueTime,
        has_taken_over: bool,
    ) -> Self {
        let now = shared.now();
        Self {
            last,
            before: last,
            now,
            // No version, so that changes since the file was opened are noticed first.
            seen_version: -1,
            sums_at: None,
            // Summed when the file was opened.
            summed: Instant::now(),
            noted: i64::MIN,
            known: now,
            looked: ClockReading::now(now),
            looked_in_group: None,
            follow_pass: FollowPass::new(),
            take_over: if has_taken_over {
                TakeOver::Done
            } else {
                TakeOver::Pending
            },
            shared,
            housekeeping,
            time,
        }
    }

    /// Notices changes by other connections since the last call, such as a redrive or a release.
    /// The tail reader then looks for due deliveries.
    fn notice_other_writers(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        let version: i64 = sql.pragma_query_value(None, "data_version", |row| row.get(0))?;
        let now = Instant::now();
        if version != self.seen_version {
            self.shared
                .last
                .fetch_max(last_position(sql)?, Ordering::AcqRel);
            self.seen_version = version;
            self.sums_at.get_or_insert(now.max(self.summed + SUM_EVERY));
            self.shared.others_wrote.store(true, Ordering::Release);
            self.shared.wake_tail_reader();
        }
        if self.sums_at.is_some_and(|at| at <= now) {
            self.shared
                .quarantined
                .store(quarantine::bytes(sql)?, Ordering::Relaxed);
            (self.sums_at, self.summed) = (None, now);
        }
        Ok(())
    }

    /// Takes the queue over from the last process, which a full disk may have prevented at the
    /// start. In a transaction, before all else in it.
    fn take_over(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        if self.take_over != TakeOver::Done {
            take_over(sql, self.time, self.now)?;
            // What happened to the clock until now is noted.
            self.looked = ClockReading::now(self.now);
            self.take_over = TakeOver::InGroup;
        }
        Ok(())
    }

    /// Takes it over as soon as there is room.
    fn take_over_at_rest(&mut self, sql: &mut Connection) -> rusqlite::Result<()> {
        if self.take_over == TakeOver::Done {
            return Ok(());
        }
        self.now = self.shared.now();
        let transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
        self.take_over(&transaction)?;
        transaction.commit()?;
        self.take_over = TakeOver::Done;
        Ok(())
    }

    /// Notes it if the clock was set. If that fails, the next check does it.
    fn follow_clock(&mut self, sql: &mut Connection) -> rusqlite::Result<bool> {
        let now = self.shared.now();
        let looked = ClockReading::now(now);
        if let Some(set) = looked.set_since(self.looked) {
            let transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
            clock_set::note(&transaction, set, self.time, now)?;
            transaction.commit()?;
            self.follow_pass.restart();
        }
        self.looked = looked;
        self.follow_pass.follow(sql, &self.shared)
    }

    /// Notes it within a group: what that claims and settles is by the new time already.
    fn note_clock(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        let looked = ClockReading::now(self.now);
        self.looked_in_group = None;
        if let Some(set) = looked.set_since(self.looked) {
            clock_set::note(sql, set, self.time, self.now)?;
            self.looked_in_group = Some(looked);
        }
        Ok(())
    }

    /// Records the time also while nothing is written, for commands that stamp by it.
    fn note_at_rest(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        let now = self.shared.now();
        self.known = self.known.max(self.noted);
        if now.saturating_sub(self.known) >= NOTE_AT_REST_EVERY || now < self.known {
            let transaction = sql.unchecked_transaction()?;
            self.time.note(&transaction, now)?;
            transaction.commit()?;
            (self.noted, self.known) = (now, now);
        }
        Ok(())
    }
}

/// Whether the queue was taken over from the last process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TakeOver {
    Pending,
    /// In the group that is being written.
    InGroup,
    Done,
}

impl Owner for QueueOwner {
    type Jobs = QueueJobs;

    fn begin<'w>(&'w mut self, sql: &'w Connection) -> rusqlite::Result<Store<'w>> {
        self.before = self.last;
        self.now = self.shared.now();
        self.take_over(sql)?;
        self.note_clock(sql)?;
        self.notice_other_writers(sql)?;
        // A release from quarantine by another connection takes a position.
        self.last = self.last.max(self.shared.last.load(Ordering::Acquire));
        Ok(Store {
            sql,
            last: &mut self.last,
            now: self.now,
            age: self.time.now(),
        })
    }

    fn end(&mut self, sql: &Connection) -> rusqlite::Result<()> {
        if self.now.saturating_sub(self.noted) >= NOTE_EVERY || self.now < self.noted {
            self.time.note(sql, self.now)?;
            self.noted = self.now;
        }
        Ok(())
    }

    fn committed(&mut self) {
        if self.take_over == TakeOver::InGroup {
            self.take_over = TakeOver::Done;
        }
        if let Some(looked) = self.looked_in_group.take() {
            self.looked = looked;
            self.follow_pass.restart();
        }
        self.before = self.last;
        self.shared.last.fetch_max(self.last, Ordering::AcqRel);
    }

    fn rolled_back(&mut self) {
        self.last = self.before;
    }

    fn answered(&mut self, wakes_reader: bool) {
        if wakes_reader {
            self.shared.wake_tail_reader();
        }
    }

    fn housekeep(
        &mut self,
        sql: &mut Connection,
        log: &mut Log,
        now: Instant,
    ) -> rusqlite::Result<bool> {
        self.take_over_at_rest(sql)?;
        let follows = self.follow_clock(sql)?;
        self.notice_other_writers(sql)?;
        let more = self.housekeeping.run(sql, &self.shared, log, now)? || follows;
        self.note_at_rest(sql)?;
        Ok(more)
    }

    fn close(&mut self, sql: &Connection) {
        if self.take_over != TakeOver::Done {
            // The next process takes over from the last one that wrote.
            return;
        }
        // No process runs these routes any more.
        let _ = set_meta(sql, WORKING, "[]");
        // Records the time, also after hours in which nothing was written.
        let _ = self.time.note(sql, self.shared.now());
    }
}
