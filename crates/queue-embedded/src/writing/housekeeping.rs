//! Housekeeping of the writer between groups: retention, measuring, sweeping.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sqlite_file::{Log, beyond_a_checkpoint, lock, set_meta, used_bytes};

use crate::file::needed::needed;
use crate::file::schema::WORKING;
use crate::options::Options;
use crate::shared::Shared;
use crate::stores::same_ids;
use crate::writing::queue_time::QueueTime;
use crate::writing::retention::{Trimmer, ids_known_for};
use crate::writing::sweep::Sweeper;

/// Interval between two measurements of the file.
const EVERY: Duration = Duration::from_secs(1);

/// Part of the limit, in percent, from which a warning is logged.
const ALARM_PERCENT: u64 = 70;

/// Part of the limit, in percent, above which settled events are removed early, so that no new
/// event is refused because of them.
const ROOM_PERCENT: u64 = 94;

/// Chunks removed in a row when room is needed: more than one group of new events takes.
const CHUNKS_FOR_ROOM: usize = 4;

/// Housekeeping of the writer: retention, measuring, sweeping, and the report on routes.
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

    /// Does what is due; `true` if there is more to do. Called after every group.
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
        let log = log.shorten(sql, shared.status(), shared.full.load(Ordering::Relaxed))?;
        let has_more_marks = same_ids::forget(sql, &self.options, self.time.now())?;
        let more = self.make_room(sql, shared)? || has_more_marks;
        // A log that a reader keeps from being checkpointed is used space; but no removal frees
        // it.
        let used = used_bytes(sql)? + beyond_a_checkpoint(shared.status().path());
        self.measure(sql, shared, UsedSpace { all: used, log }, more)?;
        let more = self.sweeper.sweep(sql)? || more;
        // Last, since on a full disk it fails, and the others may make room.
        self.show(sql, shared)?;
        self.next = if more { now } else { now + EVERY };
        Ok(more)
    }

    /// Removes events past their age and, if the file is nearly at its limit, further settled
    /// ones. `true` if there may be more.
    fn make_room(&mut self, sql: &mut Connection, shared: &Shared) -> rusqlite::Result<bool> {
        let limit = self.options.retention.bytes;
        let mut more = true;
        for _ in 0..CHUNKS_FOR_ROOM {
            let over = used_bytes(sql)? > limit / 100 * ROOM_PERCENT;
            more = self
                .trimmer
                .trim(sql, &self.options, self.time, shared.now(), over)?;
            if !(over && more) {
                break;
            }
        }
        Ok(more)
    }

    /// Writes the report on the routes, for whoever reads the file, if it has changed.
    fn show(&mut self, sql: &Connection, shared: &Shared) -> rusqlite::Result<()> {
        let Some(look) = lock(&shared.look).clone() else {
            return Ok(());
        };
        let shown = serde_json::to_string(&look.now()).unwrap_or_default();
        if shown != self.shown {
            set_meta(sql, WORKING, &shown)?;
            self.shown = shown;
        }
        Ok(())
    }

    fn measure(
        &mut self,
        sql: &Connection,
        shared: &Shared,
        used: UsedSpace,
        more: bool,
    ) -> rusqlite::Result<()> {
        let (limit, UsedSpace { all: used, log }) = (self.options.retention.bytes, used);
        let full = used > limit;
        let high = used.saturating_mul(100) >= limit.saturating_mul(ALARM_PERCENT);
        if high && !self.alarmed {
            tracing::warn!(
                used,
                limit,
                "the queue file is over {ALARM_PERCENT} % of its retention bytes"
            );
        }
        self.alarmed = high;
        if full && !shared.full.swap(true, Ordering::Relaxed) {
            let needed = needed(sql)?;
            let ids = self.trimmer.ids_held(sql)?;
            tracing::error!(
                used,
                limit,
                log,
                unread = needed.unread,
                behind = needed.behind,
                waiting = needed.deliveries,
                letters = needed.letters,
                ids,
                is_removing = more,
                "the queue is full: of events that a route has not read (`unread` by the one that is `behind`) or that wait for an attempt, dead letters, ids of settled events that Fluent may send again within 27 hours, or a log that somebody reads; new ones are refused until routes deliver, letters are worked off, the reader ends, or there is more room (`queue.retention.bytes`)"
            );
        } else if !full {
            shared.full.store(false, Ordering::Relaxed);
        }
        let window = self.options.dedup_window;
        let known_for = ids_known_for(sql, self.time, window)?;
        shared
            .ids_known_for
            .store(known_for.unwrap_or(window).as_secs(), Ordering::Relaxed);
        if let Some(known_for) = known_for.filter(|_| !self.ids_alarmed) {
            tracing::warn!(
                dedup_window_s = known_for.as_secs(),
                limit,
                "ids of settled events fill the queue file: the oldest went before the end of the dedup window; more room is needed (`queue.retention.bytes`), or a shorter window"
            );
        }
        self.ids_alarmed = known_for.is_some();
        Ok(())
    }
}

/// Used space, in bytes.
#[derive(Clone, Copy, Debug)]
struct UsedSpace {
    /// Bytes of pages in use, and of a log that is longer than it should be.
    all: u64,
    /// Bytes of the log.
    log: u64,
}

#[cfg(test)]
mod tests;
