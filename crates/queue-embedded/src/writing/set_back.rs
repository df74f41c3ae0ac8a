//! A machine's clock that is set back: what waits would wait as much longer.

use rusqlite::Connection;
use rustix::time::{ClockId, clock_gettime};
use sqlite_file::{lock, set_meta};

use crate::file::schema::CLOCK;
use crate::shared::Shared;

/// A difference that says that the clock was set, in nanoseconds; corrections are smaller.
const SET: i64 = 2_000_000_000;

/// The clock when it was last looked at, and how long the machine had run by then, also while
/// it was suspended (`CLOCK_BOOTTIME`): Unix time and time, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastLook {
    clock: i64,
    running: i64,
}

impl LastLook {
    pub(crate) fn now(clock: i64) -> Self {
        let time = clock_gettime(ClockId::Boottime);
        Self { clock, running: time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec) }
    }

    /// By how much the clock was set back since, if it was.
    pub(crate) fn set_back_since(self, before: Self) -> Option<i64> {
        let expected = before.clock.saturating_add(self.running.saturating_sub(before.running));
        Some(expected.saturating_sub(self.clock)).filter(|by| *by > SET)
    }
}

/// Moves what waits by as much as the clock was set back, so that it waits no longer.
pub(crate) fn follow(sql: &Connection, shared: &Shared, by: i64) -> rusqlite::Result<()> {
    let transaction = sql.unchecked_transaction()?;
    let moved = transaction
        .execute("UPDATE deliveries SET at = at - ?1, first_at = first_at - ?1 WHERE in_flight = 0", [by])?;
    // Or the next process would move it again.
    set_meta(&transaction, CLOCK, shared.now())?;
    transaction.commit()?;
    tracing::warn!(
        seconds = by / 1_000_000_000,
        moved,
        "the clock was set back: what waits waits no longer for it"
    );
    lock(&shared.routes).iter().for_each(|route| route.set_stale());
    shared.wake_feeder();
    Ok(())
}

/// The same at the start, where nobody knows how long the machine was off: at least what waits
/// must not wait longer than from the last write on.
pub(crate) fn follow_since(sql: &Connection, shared: &Shared, written: i64) -> rusqlite::Result<()> {
    let by = written.saturating_sub(shared.now());
    if by > SET { follow(sql, shared, by) } else { Ok(()) }
}
