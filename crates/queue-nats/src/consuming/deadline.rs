//! The end of a lease, by a clock that goes on while the machine is suspended: so does the
//! server's, which gives the delivery to another process meanwhile.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment of time since the machine was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Deadline(Duration);

impl Deadline {
    /// Returns the end of a lease that begins now: a little before the server's own.
    pub(crate) fn of(lease: Duration) -> Self {
        Self(now() + lease.mul_f32(0.9))
    }

    /// Whether it has passed.
    pub(crate) fn is_over(self) -> bool {
        now() >= self.0
    }
}

fn now() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = ClockId::Boottime;
    // On other systems this clock does not stop, or no better one is known.
    #[cfg(not(target_os = "linux"))]
    let clock = ClockId::Monotonic;
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_before_the_server_thinks_so() {
        assert!(Deadline::of(Duration::ZERO).is_over());
        assert!(!Deadline::of(Duration::from_secs(30)).is_over());
        assert!(Deadline::of(Duration::from_secs(30)) < Deadline(now() + Duration::from_secs(30)));
    }
}
