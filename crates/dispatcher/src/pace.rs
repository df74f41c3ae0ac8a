//! How many attempts may begin now: a route's rate, in this process.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use settings::RateSettings;

/// Attempts that are asked for together, in time: little enough that asking for
/// some that then do not come costs the route nothing.
const TOGETHER: Duration = Duration::from_millis(50);

/// Says that attempts are held back, until it is dropped.
struct Held<'h>(&'h AtomicBool);

impl<'h> Held<'h> {
    fn back(throttled: &'h AtomicBool) -> Self {
        throttled.store(true, Ordering::Relaxed);
        Self(throttled)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Gives out the right to begin attempts.
#[derive(Debug)]
pub(crate) struct Pace {
    limiter: Option<DefaultDirectRateLimiter>,
    /// Most rights taken at once.
    together: usize,
    /// Rights that were taken and not used.
    left: usize,
    /// Whether an attempt waits for its right.
    throttled: Arc<AtomicBool>,
}

impl Pace {
    pub(crate) fn new(rate: Option<RateSettings>) -> Self {
        let quota = rate.and_then(|rate| {
            let quota = Quota::with_period(rate.per.0 / rate.events.get())?;
            Some(quota.allow_burst(rate.burst))
        });
        let each = rate.map_or(Duration::ZERO, |rate| rate.per.0 / rate.events.get());
        let together = TOGETHER.as_nanos().checked_div(each.as_nanos()).unwrap_or(u128::MAX);
        Self {
            limiter: quota.map(RateLimiter::direct),
            together: usize::try_from(together).unwrap_or(usize::MAX).max(1),
            left: 0,
            throttled: Arc::default(),
        }
    }

    /// Says whether attempts are held back, to whoever looks.
    pub(crate) fn throttled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.throttled)
    }

    /// Waits for at least one right, and says how many of `wanted` there are now.
    /// Cancel-safe: what it took is kept.
    pub(crate) async fn ready(&mut self, wanted: usize) -> usize {
        let Some(limiter) = &self.limiter else { return wanted };
        if self.left == 0 {
            if limiter.check().is_err() {
                let _held = Held::back(&self.throttled);
                limiter.until_ready().await;
            }
            self.left = 1;
        }
        while self.left < wanted.min(self.together)
            && limiter.check_n(NonZeroU32::MIN).is_ok_and(|ok| ok.is_ok())
        {
            self.left += 1;
        }
        self.left.min(wanted)
    }

    /// So many attempts began.
    pub(crate) fn used(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
    }
}
