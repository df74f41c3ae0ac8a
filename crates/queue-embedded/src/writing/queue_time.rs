//! Age of stored events, by the time for which the queue has existed. Nobody can set that time.
//!
//! The clock of a machine may be years ahead for a moment, and an event may be stamped by it. So
//! retention uses neither: it measures how long the machine has run (`CLOCK_BOOTTIME`) since the
//! queue recorded its newest position.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};
use rustix::time::{ClockId, clock_gettime};
use sqlite_file::{meta, set_meta};

use crate::file::schema::CLOCK;

/// The key of `meta` with the queue time of the last write.
const QUEUE_TIME: &str = "queue_time";

/// Longest absence of a process that is counted, in nanoseconds. After a longer one the clock may
/// have been set meanwhile, so events are stored for longer instead.
pub(crate) const LONGEST_AWAY: i64 = 3600 * 1_000_000_000;

/// Number of steps in which the retention time is measured.
const STEPS: u32 = 1000;

/// Time in nanoseconds; begins with Unix time, and then runs on by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueTime {
    at_start: i64,
    started: i64,
}

impl QueueTime {
    /// Goes on from the time that the last process recorded. `now` is the clock's time.
    pub(crate) fn go_on(sql: &Connection, now: i64) -> rusqlite::Result<Self> {
        let noted: Option<i64> = meta(sql, QUEUE_TIME)?;
        let clock: i64 = meta(sql, CLOCK)?.unwrap_or(now);
        let away = now.saturating_sub(clock).clamp(0, LONGEST_AWAY);
        let at_start = noted.map_or(now, |noted| noted.saturating_add(away));
        Ok(Self {
            at_start,
            started: running(),
        })
    }

    pub(crate) fn now(self) -> i64 {
        self.at_start
            .saturating_add(running().saturating_sub(self.started))
    }

    /// The time of a file that another process may serve, as its last record has it. `now` is the
    /// clock's time, of which an hour at most counts.
    pub(crate) fn recorded(sql: &Connection, now: i64) -> rusqlite::Result<i64> {
        Self::go_on(sql, now).map(Self::now)
    }

    /// Records this time together with the clock's: the next process goes on from both, and would
    /// count the time between them twice.
    pub(crate) fn note(self, sql: &Connection, clock: i64) -> rusqlite::Result<()> {
        set_meta(sql, CLOCK, clock)?;
        set_meta(sql, QUEUE_TIME, self.now())
    }

    /// The newest position that is at least this old.
    pub(crate) fn position_of_age(self, sql: &Connection, age: Duration) -> rusqlite::Result<i64> {
        let at = self.now().saturating_sub(nanos(age));
        sql.prepare_cached("SELECT max(position) FROM ages WHERE at <= ?1")?
            .query_row([at], |row| row.get::<_, Option<i64>>(0))
            .map(Option::unwrap_or_default)
    }

    /// Least age of what is at this position; zero if it is new.
    pub(crate) fn age_of(self, sql: &Connection, position: i64) -> rusqlite::Result<Duration> {
        let at: Option<i64> = sql
            .prepare_cached("SELECT min(at) FROM ages WHERE position >= ?1")?
            .query_row([position], |row| row.get(0))?;
        let age = at.map_or(0, |at| self.now().saturating_sub(at));
        Ok(Duration::from_nanos(u64::try_from(age).unwrap_or(0)))
    }

    /// Records the newest position with the time, if it is new and the last record is older than
    /// one step of `kept_for`.
    pub(crate) fn mark(
        self,
        sql: &Connection,
        last: i64,
        kept_for: Duration,
        clock: i64,
    ) -> rusqlite::Result<()> {
        let newest: Option<(i64, i64)> = sql
            .prepare_cached("SELECT position, at FROM ages ORDER BY position DESC LIMIT 1")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let now = self.now();
        let step = nanos(kept_for / STEPS);
        if newest.is_some_and(|(position, at)| position >= last || now.saturating_sub(at) < step) {
            return Ok(());
        }
        sql.prepare_cached("INSERT INTO ages VALUES (?1, ?2)")?
            .execute(params![last, now])?;
        self.note(sql, clock)
    }

    /// Forgets records of positions up to this one, except the newest of them.
    pub(crate) fn forget_up_to(sql: &Connection, position: i64) -> rusqlite::Result<()> {
        sql.prepare_cached(
            "DELETE FROM ages WHERE position < (SELECT max(position) FROM ages WHERE position <= ?1)",
        )?
        .execute([position])
        .map(drop)
    }
}

fn running() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::schema::ALL;

    const SECOND: i64 = 1_000_000_000;
    const T: i64 = 1_700_000_000 * SECOND;

    fn file() -> Connection {
        let sql = Connection::open_in_memory().unwrap();
        ALL.iter()
            .for_each(|tables| sql.execute_batch(tables).unwrap());
        sql
    }

    /// The time of a process that has run for this many seconds, in a file that was new at its
    /// start.
    fn after(seconds: i64) -> QueueTime {
        QueueTime {
            at_start: T,
            started: running() - seconds * SECOND,
        }
    }

    /// Seconds by which the time of the next process exceeds the time at the beginning, if it
    /// starts this many seconds after that.
    fn went_on(sql: &Connection, seconds: i64) -> i64 {
        let next = QueueTime::go_on(sql, T + seconds * SECOND).unwrap();
        (next.now() - T + SECOND / 2) / SECOND
    }

    #[test]
    fn a_process_that_was_killed_counts_no_time_twice() {
        let sql = file();
        after(0).note(&sql, T).unwrap();
        // Nothing is written for a while, except a record of the newest position.
        after(260)
            .mark(&sql, 1, Duration::from_secs(1), T + 260 * SECOND)
            .unwrap();
        assert_eq!(went_on(&sql, 280), 280);
        assert_eq!(went_on(&sql, 260 + 7200), 260 + 3600, "an hour at most");
    }
}
