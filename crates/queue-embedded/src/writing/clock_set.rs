//! A machine's clock that is set. If it is set back, waiting deliveries would wait longer by the
//! same time; if it is set ahead, they would seem to have been tried for that time.

use rusqlite::Connection;
use rustix::time::{ClockId, clock_gettime};
use sqlite_file::{lock, set_meta};

use crate::file::schema::CLOCK;
use crate::shared::Shared;
use crate::writing::queue_time::{LONGEST_AWAY, QueueTime};

/// Smallest difference that shows that the clock was set, in nanoseconds; corrections are
/// smaller.
const SET: i64 = 2_000_000_000;

/// A reading of two clocks: the Unix time, and how long the machine had run by then, including
/// suspension (`CLOCK_BOOTTIME`); both in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClockReading {
    clock: i64,
    running: i64,
}

impl ClockReading {
    pub(crate) fn now(clock: i64) -> Self {
        let time = clock_gettime(ClockId::Boottime);
        Self {
            clock,
            running: time
                .tv_sec
                .saturating_mul(1_000_000_000)
                .saturating_add(time.tv_nsec),
        }
    }

    /// Returns how the clock was set since `before`, if it was.
    pub(crate) fn set_since(self, before: Self) -> Option<ClockSet> {
        let ran = self.running.saturating_sub(before.running);
        let ahead = self.clock.saturating_sub(before.clock.saturating_add(ran));
        if ahead > SET {
            return Some(ClockSet::Ahead(ahead));
        }
        (ahead < -SET).then(|| ClockSet::Back(-ahead))
    }
}

/// A change of the clock by hand or by the network, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClockSet {
    Back(i64),
    Ahead(i64),
}

/// Moves waiting deliveries by the time that the clock was set back, so that they do not wait
/// longer.
pub(crate) fn follow(sql: &Connection, shared: &Shared, by: i64) -> rusqlite::Result<()> {
    let transaction = sql.unchecked_transaction()?;
    let moved = transaction.execute(
        "UPDATE deliveries SET at = at - ?1, first_at = first_at - ?1 WHERE in_flight = 0",
        [by],
    )?;
    // Otherwise the next process would move them again.
    set_meta(&transaction, CLOCK, shared.now())?;
    transaction.commit()?;
    tracing::warn!(
        seconds = by / 1_000_000_000,
        moved,
        "the clock was set back: what waits waits no longer for it"
    );
    lock(&shared.routes)
        .iter()
        .for_each(|route| route.set_stale());
    shared.wake_tail_reader();
    Ok(())
}

/// Moves the first attempts of deliveries by the time that the clock was set ahead, so that they
/// do not seem to have been tried for that time. When they are due stays as it is: they are due
/// earlier, which harms nothing.
pub(crate) fn move_first_attempts(sql: &Connection, by: i64) -> rusqlite::Result<()> {
    let moved = sql.execute("UPDATE deliveries SET first_at = first_at + ?1", [by])?;
    tracing::warn!(
        seconds = by / 1_000_000_000,
        moved,
        "the clock was set ahead: that does not count as time for which deliveries were tried"
    );
    Ok(())
}

/// Moves them at the start by the time that the last process is away, beyond what is counted of
/// that: nobody knows how much of it the machine was off, or its clock wrong. `time` goes on from
/// the last record of that process, and is recorded, or the next one would move them again.
pub(crate) fn follow_absence(
    sql: &Connection,
    time: QueueTime,
    written: Option<i64>,
    now: i64,
) -> rusqlite::Result<()> {
    let away = written.map_or(0, |written| now.saturating_sub(written));
    let by = away.saturating_sub(LONGEST_AWAY);
    if by <= SET {
        return Ok(());
    }
    let transaction = sql.unchecked_transaction()?;
    move_first_attempts(&transaction, by)?;
    time.note(&transaction, now)?;
    transaction.commit()
}

/// Moves waiting deliveries at the start if the clock was set back, when nobody knows how long the
/// machine was off: they must at least not wait longer than counted from the last write.
pub(crate) fn follow_since(
    sql: &Connection,
    shared: &Shared,
    written: Option<i64>,
) -> rusqlite::Result<()> {
    let by = written.map_or(0, |written| written.saturating_sub(shared.now()));
    if by > SET {
        follow(sql, shared, by)
    } else {
        Ok(())
    }
}
