//! A machine's clock that is set ahead and back while a gateway runs, and while it is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use event_model::{Clock, SystemClock, Timestamp};
use fluent_queue_spooled::{Options, Spooled};
use queue::Lifecycle;

use crate::world::{World, events, publish};

const KEEP: Duration = Duration::from_secs(3);

const HOUR: i64 = 3600;
const TEN_YEARS: i64 = 10 * 365 * 24 * HOUR;

/// The machine's clock, and the seconds by which it was set.
#[derive(Clone, Debug, Default)]
struct SetClock(Arc<AtomicI64>);

impl SetClock {
    fn set_by(&self, seconds: i64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        let by = Duration::from_secs(self.0.load(Ordering::SeqCst).unsigned_abs());
        let now = SystemClock.now();
        match self.0.load(Ordering::SeqCst) {
            ..0 => now.saturating_sub(by).unwrap(),
            _ => now.saturating_add(by).unwrap(),
        }
    }
}

/// Time for which events stayed in the spool that were acknowledged before the clock was set or,
/// if it is set again, in between.
async fn kept(set_by: i64, is_set_again: bool) -> Duration {
    let world = World::new().await;
    let clock = SetClock::default();
    let options = Options {
        keep: KEEP,
        ..Options::new(world.spool())
    };
    let spooled = Spooled::open(world.queue().await, options, Arc::new(clock.clone())).unwrap();
    let began = Instant::now();
    publish(&spooled, &events("B", 20)).await;
    world.wait_until_acknowledged().await;
    clock.set_by(set_by);
    if is_set_again {
        publish(&spooled, &events("A", 20)).await;
        world.wait_until_acknowledged().await;
        clock.set_by(0);
    }
    world.wait_until_empty().await;
    spooled.close().await;
    began.elapsed()
}

/// Time for which events stayed in the spool if the clock was set while no process served it.
async fn kept_by_the_next_process(set_by: i64) -> Duration {
    let world = World::new().await;
    let clock = SetClock::default();
    let options = Options {
        keep: KEEP,
        ..Options::new(world.spool())
    };
    let open = async || {
        let queue = world.queue().await;
        Spooled::open(queue, options.clone(), Arc::new(clock.clone())).unwrap()
    };
    let spooled = open().await;
    let began = Instant::now();
    publish(&spooled, &events("B", 20)).await;
    world.wait_until_acknowledged().await;
    spooled.close().await;
    drop(spooled);
    clock.set_by(set_by);
    let spooled = open().await;
    world.wait_until_empty().await;
    spooled.close().await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_while_nobody_serves_the_spool_changes_nothing_either() {
    for set_by in [TEN_YEARS, -HOUR] {
        let kept = kept_by_the_next_process(set_by).await;
        assert!(kept >= KEEP, "{set_by}: {kept:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_gives_nothing_up_early_and_keeps_nothing_for_years() {
    for (set_by, is_set_again) in [(TEN_YEARS, false), (TEN_YEARS, true), (-HOUR, false)] {
        let kept = kept(set_by, is_set_again).await;
        assert!(kept >= KEEP, "{set_by}: {kept:?}");
    }
}
