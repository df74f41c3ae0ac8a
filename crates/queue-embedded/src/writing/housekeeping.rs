use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::file::schema::{WORKING, set_meta};
use crate::options::Options;
use crate::shared::{Shared, lock};
use crate::writing::retention::Trimmer;
use crate::writing::sweep::Sweeper;

/// How often the file is measured and trimmed.
const EVERY: Duration = Duration::from_secs(1);

/// The log is moved into the file when it has this many pages: 16 MiB.
const CHECKPOINT_PAGES: u64 = 4096;

/// Share of the limit, in percent, from which somebody should know.
const ALARM_PERCENT: u64 = 70;

/// What the writer does between groups: checkpoints, retention, measuring.
#[derive(Debug)]
pub(crate) struct Housekeeping {
    options: Options,
    next: Instant,
    commits: u64,
    alarmed: bool,
    trimmer: Trimmer,
    sweeper: Sweeper,
    shown: String,
}

impl Housekeeping {
    pub(crate) fn new(options: Options) -> Self {
        let now = Instant::now();
        Self {
            options,
            next: now,
            commits: 0,
            alarmed: false,
            trimmer: Trimmer::new(now),
            sweeper: Sweeper::new(),
            shown: String::new(),
        }
    }

    /// Does what is due; `true` if there is more. Called after every group.
    pub(crate) fn run(
        &mut self,
        sql: &mut Connection,
        shared: &Shared,
        now: Instant,
    ) -> rusqlite::Result<bool> {
        self.commits += 1;
        if self.commits.is_multiple_of(16) {
            checkpoint(sql, &shared.path)?;
        }
        if now < self.next {
            return Ok(false);
        }
        self.show(sql, shared)?;
        let used = used_bytes(sql)?;
        let over = used > self.options.retention.bytes;
        let more = self.trimmer.trim(sql, &self.options, shared.now(), over)?;
        self.measure(shared, used, over && !more);
        let more = self.sweeper.sweep(sql)? || more;
        self.next = if more { now } else { now + EVERY };
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

    fn measure(&mut self, shared: &Shared, used: u64, full: bool) {
        let limit = self.options.retention.bytes;
        let high = used.saturating_mul(100) >= limit.saturating_mul(ALARM_PERCENT);
        if high && !self.alarmed {
            tracing::warn!(used, limit, "the queue file is over {ALARM_PERCENT} % of its retention bytes");
        }
        self.alarmed = high;
        if full && !shared.full.swap(true, Ordering::Relaxed) {
            tracing::error!(
                used,
                limit,
                "the queue is full of events that no route has settled: new ones are refused"
            );
        } else if !full {
            shared.full.store(false, Ordering::Relaxed);
        }
    }
}

/// Moves the log into the file once it is long. Its errors are final: a second
/// try could succeed without having written.
pub(crate) fn checkpoint(sql: &Connection, path: &Path) -> rusqlite::Result<()> {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let length = std::fs::metadata(wal).map_or(0, |metadata| metadata.len());
    if length < CHECKPOINT_PAGES * 4096 {
        return Ok(());
    }
    sql.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

/// Bytes of the file that hold something.
pub(crate) fn used_bytes(sql: &Connection) -> rusqlite::Result<u64> {
    let number = |name: &str| sql.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = number("page_count")? - number("freelist_count")?;
    Ok(u64::try_from(pages * number("page_size")?).unwrap_or(0))
}
