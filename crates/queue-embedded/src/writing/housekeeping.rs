//! What the writer does between groups: retention, measuring, sweeping.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sqlite_file::rows::unsigned;
use sqlite_file::{Log, beyond_a_checkpoint, lock, set_meta, used_bytes};

use crate::beside::same_ids;
use crate::file::schema::{WORKING, last_position};
use crate::options::Options;
use crate::shared::Shared;
use crate::writing::queue_time::QueueTime;
use crate::writing::retention::{Trimmer, ids_known_for, settled_up_to};
use crate::writing::sweep::Sweeper;

/// How often the file is measured and trimmed.
const EVERY: Duration = Duration::from_secs(1);

/// Share of the limit, in percent, from which somebody should know.
const ALARM_PERCENT: u64 = 70;

/// Share of the limit, in percent, above which what is settled makes room: so that nothing new is
/// refused for what may go.
const ROOM_PERCENT: u64 = 94;

/// Chunks in a row where room is needed: more than one group of new events takes.
const CHUNKS_FOR_ROOM: usize = 4;

/// What the writer does between groups: retention, measuring.
#[derive(Debug)]
pub(crate) struct Housekeeping {
    options: Options,
    next: Instant,
    alarmed: bool,
    ids_alarmed: bool,
    time: QueueTime,
    trimmer: Trimmer,
    sweeper: Sweeper,
    shown: String,
}

impl Housekeeping {
    pub(crate) fn new(options: Options, time: QueueTime) -> Self {
        Self {
            options,
            next: Instant::now(),
            alarmed: false,
            ids_alarmed: false,
            time,
            trimmer: Trimmer::default(),
            sweeper: Sweeper::new(),
            shown: String::new(),
        }
    }

    /// Does what is due; `true` if there is more. Called after every group.
    pub(crate) fn run(
        &mut self,
        sql: &mut Connection,
        shared: &Shared,
        log: &mut Log,
        now: Instant,
    ) -> rusqlite::Result<bool> {
        if now < self.next {
            return Ok(false);
        }
        self.show(sql, shared)?;
        let log = log.shorten(sql, shared.status(), shared.full.load(Ordering::Relaxed))?;
        let has_more_marks = same_ids::forget(sql, &self.options, shared.now())?;
        let more = self.make_room(sql, shared)? || has_more_marks;
        // What a reader keeps in the log is room that is used; but nothing that goes frees it.
        let used = used_bytes(sql)? + beyond_a_checkpoint(shared.status().path());
        self.measure(sql, shared, Used { all: used, log }, more)?;
        let more = self.sweeper.sweep(sql)? || more;
        self.next = if more { now } else { now + EVERY };
        Ok(more)
    }

    /// Removes what has its age and, where the file itself is nearly as large as it may be, more
    /// of what is settled. `true` if there may be more.
    fn make_room(&mut self, sql: &mut Connection, shared: &Shared) -> rusqlite::Result<bool> {
        let (limit, mut more) = (self.options.retention.bytes, true);
        for _ in 0..CHUNKS_FOR_ROOM {
            let over = used_bytes(sql)? > limit / 100 * ROOM_PERCENT;
            more = self.trimmer.trim(sql, &self.options, self.time, shared.now(), over)?;
            if !(over && more) {
                break;
            }
        }
        Ok(more)
    }

    /// Writes how the routes stand, for whoever looks into the file, when that has
    /// changed.
    fn show(&mut self, sql: &Connection, shared: &Shared) -> rusqlite::Result<()> {
        let Some(look) = lock(&shared.look).clone() else { return Ok(()) };
        let shown = serde_json::to_string(&look.now()).unwrap_or_default();
        if shown != self.shown {
            set_meta(sql, WORKING, &shown)?;
            self.shown = shown;
        }
        Ok(())
    }

    fn measure(&mut self, sql: &Connection, shared: &Shared, used: Used, more: bool) -> rusqlite::Result<()> {
        let (limit, Used { all: used, log }) = (self.options.retention.bytes, used);
        let full = used > limit;
        let high = used.saturating_mul(100) >= limit.saturating_mul(ALARM_PERCENT);
        if high && !self.alarmed {
            tracing::warn!(used, limit, "the queue file is over {ALARM_PERCENT} % of its retention bytes");
        }
        self.alarmed = high;
        if full && !shared.full.swap(true, Ordering::Relaxed) {
            let (unsettled, letters) = (last_position(sql)? - settled_up_to(sql)?, dead_letters(sql)?);
            let ids = self.trimmer.ids_held(sql)?;
            tracing::error!(
                used,
                limit,
                log,
                unsettled,
                letters,
                ids,
                is_removing = more,
                "the queue is full: of events that some route has not settled, dead letters, ids of settled events that Fluent may send again within 27 hours, or a log that somebody reads; new ones are refused until a route delivers, letters are worked off, the reader ends, or there is more room (`queue.retention.bytes`)"
            );
        } else if !full {
            shared.full.store(false, Ordering::Relaxed);
        }
        let window = self.options.dedup_window;
        let known_for = ids_known_for(sql, self.time, window)?;
        shared.ids_known_for.store(known_for.unwrap_or(window).as_secs(), Ordering::Relaxed);
        if let Some(known_for) = known_for.filter(|_| !self.ids_alarmed) {
            tracing::warn!(
                known_for = known_for.as_secs(),
                limit,
                "ids of settled events fill the queue file: the oldest went before the end of the dedup window; more room is needed (`queue.retention.bytes`), or a shorter window"
            );
        }
        self.ids_alarmed = known_for.is_some();
        Ok(())
    }
}

/// Bytes.
#[derive(Clone, Copy, Debug)]
struct Used {
    /// Of what holds something, and of a log that is longer than it is to be.
    all: u64,
    /// Of the log.
    log: u64,
}

fn dead_letters(sql: &Connection) -> rusqlite::Result<u64> {
    sql.query_row("SELECT coalesce(sum(dead), 0) FROM dead_counts", [], |row| row.get(0)).map(unsigned)
}

#[cfg(test)]
mod tests;
