//! A machine's clock that is set back, after which waiting deliveries would wait longer by the
//! same time.

use rusqlite::Connection;
use rustix::time::{ClockId, clock_gettime};
use sqlite_file::{lock, set_meta};

use crate::file::schema::CLOCK;
use crate::shared::Shared;

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

    /// Time by which the clock was set back since `before`, in nanoseconds, if it was.
    pub(crate) fn set_back_since(self, before: Self) -> Option<i64> {
        let expected = before
            .clock
            .saturating_add(self.running.saturating_sub(before.running));
        Some(expected.saturating_sub(self.clock)).filter(|by| *by > SET)
    }
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

/// Does the same at the start, when nobody knows how long the machine was off: deliveries must at
/// least not wait longer than counted from the last write.
pub(crate) fn follow_since(
    sql: &Connection,
    shared: &Shared,
    written: i64,
) -> rusqlite::Result<()> {
    let by = written.saturating_sub(shared.now());
    if by > SET {
        follow(sql, shared, by)
    } else {
        Ok(())
    }
}
