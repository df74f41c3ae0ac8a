//! No more attempts begin than the rate allows, however deliveries are fetched and come.

use std::num::NonZeroU32;

use tokio::time::{advance, sleep, timeout};

use super::*;

const MILLI: Duration = Duration::from_millis(1);

fn settings(events: u32, per: Duration, burst: u32) -> RateSettings {
    let number = |number| NonZeroU32::new(number).unwrap();
    RateSettings {
        events: number(events),
        per,
        burst: number(burst),
    }
}

/// Returns when attempts began on a route whose queue hands out any number of deliveries.
async fn attempts(rate: RateSettings, random: &mut fastrand::Rng) -> Vec<Instant> {
    let mut rate_limiter = RateLimiter::new(Some(rate));
    let mut began = Vec::new();
    for _ in 0..500 {
        // Cancelled sometimes, as when a route drains or its capacity shrinks.
        let patience = MILLI * random.u32(0..40);
        let Ok(permitted) = timeout(patience, rate_limiter.permits(random.usize(1..20))).await
        else {
            continue;
        };
        sleep(MILLI * random.u32(0..100)).await;
        if random.u8(0..4) == 0 {
            continue;
        }
        let handed_out = random.usize(0..=permitted);
        rate_limiter.consume(handed_out);
        began.extend(std::iter::repeat_n(Instant::now(), handed_out));
    }
    began
}

/// Returns the most attempts that the rate allows in this time: its tokens and one burst.
fn most(rate: RateSettings, time: Duration) -> u128 {
    let each = rate.per.as_nanos() / u128::from(rate.events.get());
    time.as_nanos() / each + u128::from(rate.burst.get())
}

#[tokio::test(start_paused = true)]
async fn no_more_attempts_begin_than_the_rate_and_a_burst() {
    let second = Duration::from_secs(1);
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        for rate in [
            settings(20, second, 5),
            settings(1000, second, 1),
            settings(3, second * 60, 3),
        ] {
            let began = attempts(rate, &mut random).await;
            for (index, from) in began.iter().enumerate() {
                for (count, until) in began[index..].iter().enumerate() {
                    let count = count as u128 + 1;
                    let most = most(rate, *until - *from);
                    assert!(
                        count <= most,
                        "{count} in {:?}, {most} may ({rate:?})",
                        *until - *from
                    );
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_rate_gives_is_used_up() {
    let mut rate_limiter = RateLimiter::new(Some(settings(20, Duration::from_secs(1), 5)));
    let throttled = rate_limiter.throttled();
    let began = Instant::now();
    let mut count = 0;
    while count < 105 {
        let permitted = rate_limiter.permits(16).await;
        rate_limiter.consume(permitted);
        count += permitted;
    }
    assert_eq!(
        began.elapsed(),
        Duration::from_secs(5),
        "five at once, and then twenty a second"
    );
    assert!(!throttled.load(Ordering::Relaxed));
    assert!(timeout(MILLI, rate_limiter.permits(1)).await.is_err());
    assert!(!throttled.load(Ordering::Relaxed), "nobody waits any more");
    advance(Duration::from_mins(10)).await;
    assert_eq!(
        rate_limiter.permits(16).await,
        5,
        "a long pause gives one burst"
    );
    assert_eq!(
        RateLimiter::new(None).permits(16).await,
        16,
        "without a rate there is no bound"
    );
}
