//! The rate limit of a route in this process: how many attempts may begin now.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use settings::RateSettings;
use tokio::time::{Instant, sleep_until};

/// Marks attempts as delayed until it is dropped.
struct ThrottleGuard<'h>(&'h AtomicBool);

impl<'h> ThrottleGuard<'h> {
    fn new(throttled: &'h AtomicBool) -> Self {
        throttled.store(true, Ordering::Relaxed);
        Self(throttled)
    }
}

impl Drop for ThrottleGuard<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Limits how many attempts may begin in a time.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    bucket: Option<TokenBucket>,
    /// Whether an attempt waits for the rate limit.
    throttled: Arc<AtomicBool>,
}

/// A token bucket. Tokens are taken when attempts begin, not when deliveries are fetched: those
/// taken in advance, for deliveries that do not come, would add up beyond the burst.
#[derive(Debug)]
struct TokenBucket {
    /// Time for one more token.
    each: Duration,
    burst: u32,
    /// Time at which it has all its tokens again, if none is taken.
    full_at: Instant,
}

impl TokenBucket {
    fn new(rate: RateSettings) -> Self {
        let each = rate.per / rate.events.get();
        Self {
            each,
            burst: rate.burst.get(),
            full_at: Instant::now(),
        }
    }

    /// Returns when there is at least one token.
    fn next_at(&self) -> Instant {
        let to_fill_from_one = self.each * (self.burst - 1);
        self.full_at
            .checked_sub(to_fill_from_one)
            .unwrap_or(self.full_at)
    }

    fn tokens(&self, now: Instant) -> usize {
        let missing = self.full_at.saturating_duration_since(now);
        let missing = missing.as_nanos().div_ceil(self.each.as_nanos());
        usize::try_from(u128::from(self.burst).saturating_sub(missing)).unwrap_or(usize::MAX)
    }

    fn take(&mut self, count: usize, now: Instant) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.full_at = self.full_at.max(now) + self.each.saturating_mul(count);
    }
}

impl RateLimiter {
    pub(crate) fn new(rate: Option<RateSettings>) -> Self {
        Self {
            bucket: rate.map(TokenBucket::new),
            throttled: Arc::default(),
        }
    }

    /// Returns the flag that says whether attempts are delayed.
    pub(crate) fn throttled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.throttled)
    }

    /// Waits until an attempt may begin; returns how many of `wanted` may. Cancel-safe: nothing
    /// is taken before [`RateLimiter::consume`].
    pub(crate) async fn permits(&self, wanted: usize) -> usize {
        let Some(bucket) = &self.bucket else {
            return wanted;
        };
        let next_at = bucket.next_at();
        if next_at > Instant::now() {
            let _held = ThrottleGuard::new(&self.throttled);
            sleep_until(next_at).await;
        }
        bucket.tokens(Instant::now()).min(wanted)
    }

    /// Takes tokens for attempts that began: no more than were ready.
    pub(crate) fn consume(&mut self, count: usize) {
        if let Some(bucket) = &mut self.bucket {
            bucket.take(count, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
