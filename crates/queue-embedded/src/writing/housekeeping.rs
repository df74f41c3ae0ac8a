use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use crate::file::door::beside;
use crate::file::rows::unsigned;
use crate::file::schema::{BUSY, CHECKPOINT_BYTES, WORKING, last_position, set_meta};
use crate::options::Options;
use crate::shared::{Shared, lock};
use crate::writing::queue_time::QueueTime;
use crate::writing::retention::{Trimmer, ids_known_for, settled_up_to};
use crate::writing::sweep::Sweeper;

/// How often the file is measured and trimmed.
const EVERY: Duration = Duration::from_secs(1);

const CHECKPOINT_PAGES: i32 = 4096;

/// A log of this size is longer than moving it into the file explains: somebody reads, and
/// does not end.
const LONG_LOG: u64 = 4 * CHECKPOINT_BYTES;

/// How long a checkpoint waits for readers to end, so that the log begins anew.
const FOR_READERS: Duration = Duration::from_millis(50);

/// Share of the limit, in percent, from which somebody should know.
const ALARM_PERCENT: u64 = 70;

/// Share of the limit, in percent, above which what is settled makes room: so that nothing new is
/// refused for what may go.
const ROOM_PERCENT: u64 = 94;

/// Chunks in a row where room is needed: more than one group of new events takes.
const CHUNKS_FOR_ROOM: usize = 4;

/// What the writer does between groups: checkpoints, retention, measuring.
#[derive(Debug)]
pub(crate) struct Housekeeping {
    options: Options,
    next: Instant,
    commits: u64,
    alarmed: bool,
    /// Pages of the log that are not in the file yet, after the last commit.
    log_pages: Arc<AtomicI32>,
    log_alarmed: bool,
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
            commits: 0,
            alarmed: false,
            log_pages: Arc::default(),
            log_alarmed: false,
            ids_alarmed: false,
            time,
            trimmer: Trimmer::default(),
            sweeper: Sweeper::new(),
            shown: String::new(),
        }
    }

    /// Is told by SQLite how long the log is. Its file says that no more once it has been long:
    /// it is written from its beginning again.
    pub(crate) fn follow_log(&self, sql: &mut Connection) -> rusqlite::Result<()> {
        let log_pages = Arc::clone(&self.log_pages);
        sql.wal_hook(Some(move |_: &mut Wal, pages| {
            log_pages.store(pages, Ordering::Relaxed);
            Ok(())
        }))
    }

    /// Does what is due; `true` if there is more. Called after every group.
    pub(crate) fn run(
        &mut self,
        sql: &mut Connection,
        shared: &Shared,
        now: Instant,
    ) -> rusqlite::Result<bool> {
        self.commits += 1;
        if self.log_pages.load(Ordering::Relaxed) >= CHECKPOINT_PAGES && self.commits.is_multiple_of(16) {
            sql.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        }
        if now < self.next {
            return Ok(false);
        }
        self.show(sql, shared)?;
        let log = self.shorten_log(sql, shared)?;
        let more = self.make_room(sql, shared)?;
        // What a reader keeps in the log is room that is used; but nothing that goes frees it.
        let used = used_bytes(sql)? + beyond_a_checkpoint(&shared.path);
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

    /// Begins the log anew where it has become long, or fills the queue, if nobody reads in it.
    /// Says how long it was.
    fn shorten_log(&mut self, sql: &Connection, shared: &Shared) -> rusqlite::Result<u64> {
        let length = log_bytes(&shared.path);
        let is_long = length > LONG_LOG;
        let fills = length > CHECKPOINT_BYTES && shared.full.load(Ordering::Relaxed);
        if is_long || fills {
            sql.busy_timeout(FOR_READERS)?;
            // A full queue writes nothing by which its file would become shorter.
            let begun = sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            sql.busy_timeout(BUSY)?;
            begun?;
        }
        if is_long && !self.log_alarmed {
            tracing::warn!(
                log = length,
                "the queue file's log grows, since somebody reads the file for long: another program that has it open, or a backup"
            );
        }
        self.log_alarmed = is_long;
        Ok(length)
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

/// Moves the log into the file once it is long. Its errors are final: a second
/// try could succeed without having written.
pub(crate) fn checkpoint(sql: &Connection, path: &Path) -> rusqlite::Result<()> {
    if log_bytes(path) < CHECKPOINT_BYTES {
        return Ok(());
    }
    sql.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// By how much the log is longer than it is to be: somebody reads, and does not end.
pub(crate) fn beyond_a_checkpoint(path: &Path) -> u64 {
    log_bytes(path).saturating_sub(CHECKPOINT_BYTES)
}

fn log_bytes(path: &Path) -> u64 {
    std::fs::metadata(beside(path, "-wal")).map_or(0, |metadata| metadata.len())
}

/// Bytes of the file that hold something.
pub(crate) fn used_bytes(sql: &Connection) -> rusqlite::Result<u64> {
    let number = |name: &str| sql.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = number("page_count")? - number("freelist_count")?;
    Ok(u64::try_from(pages * number("page_size")?).unwrap_or(0))
}

#[cfg(test)]
mod tests;
