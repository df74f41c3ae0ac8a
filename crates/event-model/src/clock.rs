use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

/// Says what time it is, so that a test can say otherwise.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door to the clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that goes on from what another says now, whatever becomes of that: for how long
/// something was kept, which must not depend on who sets the machine's.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    began: Timestamp,
    /// How long the machine had run then.
    since: Duration,
}

impl SteadyClock {
    /// Begins at the time of `clock`.
    pub fn beginning_with(clock: &dyn Clock) -> Self {
        Self { began: clock.now(), since: uptime() }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.began.saturating_add(uptime().saturating_sub(self.since)).unwrap_or(Timestamp::MAX)
    }
}

/// For how long this machine runs, while it sleeps too: the library's `Instant` stands still
/// then, and what is kept for an hour would be kept for a night.
#[cfg(target_os = "linux")]
fn uptime() -> Duration {
    let read = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    read.try_into().unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn uptime() -> Duration {
    static BEGAN: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    BEGAN.elapsed()
}

/// A clock that stands still.
#[derive(Clone, Copy, Debug)]
pub struct FixedClock(pub Timestamp);

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        self.0
    }
}

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    /// The kernel counts it with the time that the machine slept.
    fn told_by_the_kernel() -> Duration {
        let told = std::fs::read_to_string("/proc/uptime").unwrap();
        Duration::from_secs_f64(told.split(' ').next().unwrap().parse().unwrap())
    }

    #[test]
    fn time_passes_while_the_machine_sleeps_too() {
        let before = told_by_the_kernel();
        let uptime = uptime();
        // It is told in hundredths.
        let after = told_by_the_kernel() + Duration::from_millis(10);
        assert!(before <= uptime && uptime <= after, "{before:?} {uptime:?} {after:?}");
    }

    #[test]
    fn a_steady_clock_begins_with_another_and_goes_on() {
        let clock = SteadyClock::beginning_with(&FixedClock(Timestamp::UNIX_EPOCH));
        let first = clock.now();
        assert!(first >= Timestamp::UNIX_EPOCH);
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while clock.now() <= first {
            assert!(std::time::Instant::now() < deadline);
        }
    }
}
