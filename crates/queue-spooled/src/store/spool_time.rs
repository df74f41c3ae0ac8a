//! The time by which a spool measures for how long it has stored an event. Nobody can set it:
//! while a process serves the file, it runs as the machine does, and the next process goes on from
//! what was recorded.

use std::fs;
use std::sync::Arc;

use event_model::{Clock, FixedClock, SteadyClock, Timestamp};
use rusqlite::Connection;
use rustix::time::{ClockId, clock_gettime};
use sqlite_file::rows::{from_nanos, nanos};
use sqlite_file::{meta, set_meta};

/// The keys of `meta` with the last record: this time, the clock's, and how long the machine had
/// run, with the id of its start.
const TIME: &str = "time";
const CLOCK: &str = "clock";
const RUNNING: &str = "running";
const BOOT: &str = "boot";

/// The time of a spool that this process serves.
#[derive(Debug)]
pub(crate) struct SpoolTime {
    steady: SteadyClock,
    clock: Arc<dyn Clock>,
}

impl SpoolTime {
    /// Goes on from the last record.
    pub(crate) fn go_on(sql: &Connection, clock: Arc<dyn Clock>) -> rusqlite::Result<Self> {
        let now = Reading::now(&*clock);
        let began = match meta::<i64>(sql, TIME)? {
            Some(time) => time.saturating_add(now.since(&Reading::recorded(sql)?)),
            None => now.clock,
        };
        let began = from_nanos(began).unwrap_or(Timestamp::MAX);
        Ok(Self {
            steady: SteadyClock::beginning_with(&FixedClock(began)),
            clock,
        })
    }

    /// Records this time for the next process.
    pub(crate) fn note(&self, sql: &Connection) -> rusqlite::Result<()> {
        let reading = Reading::now(&*self.clock);
        set_meta(sql, TIME, nanos(self.now()))?;
        set_meta(sql, CLOCK, reading.clock)?;
        set_meta(sql, RUNNING, reading.running)?;
        set_meta(sql, BOOT, reading.boot)
    }
}

impl Clock for SpoolTime {
    fn now(&self) -> Timestamp {
        self.steady.now()
    }
}

/// A reading of the machine's clocks, in nanoseconds.
#[derive(Clone, Debug)]
struct Reading {
    clock: i64,
    /// How long the machine had run, including suspension.
    running: i64,
    /// The id of the machine's start.
    boot: Option<String>,
}

impl Reading {
    fn now(clock: &dyn Clock) -> Self {
        let running = clock_gettime(ClockId::Boottime);
        Self {
            clock: nanos(clock.now()),
            running: running
                .tv_sec
                .saturating_mul(1_000_000_000)
                .saturating_add(running.tv_nsec),
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id").ok(),
        }
    }

    fn recorded(sql: &Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            clock: meta(sql, CLOCK)?.unwrap_or(i64::MAX),
            running: meta(sql, RUNNING)?.unwrap_or(i64::MAX),
            boot: meta::<Option<String>>(sql, BOOT)?.flatten(),
        })
    }

    /// Time since an earlier reading. Only if the machine was started in between, its clock is
    /// believed: after a long absence, what the queue has removed is not to be sent again.
    fn since(&self, earlier: &Self) -> i64 {
        let passed = if self.boot.is_some() && self.boot == earlier.boot {
            self.running.saturating_sub(earlier.running)
        } else {
            self.clock.saturating_sub(earlier.clock)
        };
        passed.max(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(clock: i64, running: i64, boot: Option<&str>) -> Reading {
        Reading {
            clock,
            running,
            boot: boot.map(str::to_owned),
        }
    }

    #[test]
    fn the_clock_is_believed_only_if_the_machine_was_started_in_between() {
        let before = reading(1000, 50, Some("a"));
        for (now, passed) in [
            (reading(900_000, 57, Some("a")), 7),
            (reading(10, 57, Some("a")), 7),
            (reading(1300, 2, Some("b")), 300),
            (reading(10, 2, Some("b")), 0),
            (reading(1300, 57, None), 300),
        ] {
            assert_eq!(now.since(&before), passed, "{now:?}");
        }
        let unknown = reading(1000, 50, None);
        assert_eq!(reading(1300, 57, None).since(&unknown), 300);
    }
}
