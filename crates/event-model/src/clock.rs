//! Clocks, as sources of the current time that are passed in.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

/// A source of the current time, so that tests can choose it.
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

/// A clock that starts with another clock's time and then runs on by itself. For measuring how
/// long something was stored, which must not change when the machine's clock is set.
#[derive(Clone, Copy, Debug)]
pub struct SteadyClock {
    began: Timestamp,
    /// Time that the machine had run by then.
    since: Duration,
}

impl SteadyClock {
    /// Starts a clock with the present time of `clock`.
    pub fn beginning_with(clock: &dyn Clock) -> Self {
        Self {
            began: clock.now(),
            since: uptime(),
        }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.began
            .saturating_add(uptime().saturating_sub(self.since))
            .unwrap_or(Timestamp::MAX)
    }
}

/// Time that this machine has run, including suspension: the standard library's `Instant` stands
/// still then, so that something stored for an hour would be stored for a night.
#[cfg(target_os = "linux")]
fn uptime() -> Duration {
    let read = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    read.try_into().unwrap_or_default()
}

#[cfg(not(target_os = "linux"))]
fn uptime() -> Duration {
    static BEGAN: std::sync::LazyLock<std::time::Instant> =
        std::sync::LazyLock::new(std::time::Instant::now);
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

    /// The kernel's own number, which includes suspension.
    fn told_by_the_kernel() -> Duration {
        let told = std::fs::read_to_string("/proc/uptime").unwrap();
        Duration::from_secs_f64(told.split(' ').next().unwrap().parse().unwrap())
    }

    #[test]
    fn time_passes_while_the_machine_sleeps_too() {
        let before = told_by_the_kernel();
        let uptime = uptime();
        // The kernel rounds to hundredths of a second.
        let after = told_by_the_kernel() + Duration::from_millis(10);
        assert!(
            before <= uptime && uptime <= after,
            "{before:?} {uptime:?} {after:?}"
        );
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
