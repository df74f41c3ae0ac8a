use std::fmt;
use std::time::Instant;

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
    since: Instant,
}

impl SteadyClock {
    /// Begins at the time of `clock`.
    pub fn beginning_with(clock: &dyn Clock) -> Self {
        Self { began: clock.now(), since: Instant::now() }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        self.began.saturating_add(self.since.elapsed()).unwrap_or(Timestamp::MAX)
    }
}

/// A clock that stands still.
#[derive(Clone, Copy, Debug)]
pub struct FixedClock(pub Timestamp);

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        self.0
    }
}
