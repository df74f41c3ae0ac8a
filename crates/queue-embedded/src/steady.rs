//! Time that goes on, whatever is done to the machine's clock.

use std::time::Duration;

use event_model::{Clock, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// A clock that begins at the time of another and runs by itself: one that is set back or
/// ahead while a process runs turns no wait of a second into an hour, and ends no retention.
/// It goes on while the machine is suspended (`CLOCK_BOOTTIME`).
///
/// # Examples
/// ```
/// use event_model::{Clock, SystemClock};
/// use queue_embedded::SteadyClock;
///
/// let clock = SteadyClock::from_now_of(&SystemClock);
/// assert!(clock.now() <= clock.now());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    /// What it was when the machine had started for no time at all.
    started_at: Timestamp,
}

impl SteadyClock {
    /// Begins at this clock's time.
    pub fn from_now_of(clock: &dyn Clock) -> Self {
        let now = clock.now();
        Self { started_at: now.checked_sub(since_start()).unwrap_or(now) }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.started_at.checked_add(since_start()).unwrap_or(self.started_at)
    }
}

fn since_start() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
