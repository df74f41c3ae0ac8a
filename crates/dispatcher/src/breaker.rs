//! Leaves a destination alone that fails, and asks now and then whether it is
//! back. What is not asked for stays in the queue and burns no attempt.
//!
//! ```text
//! closed ──fails often──▶ open ──rested──▶ probing ──one attempt ends well──▶ closed
//!                          ▲                  │
//!                          └──it fails: rest longer
//! ```

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_model::{Clock, Timestamp};
use queue::BreakerState;
use settings::BreakerSettings;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// One route's breaker, in this process.
#[derive(Debug)]
pub(crate) struct Breaker {
    route: String,
    settings: Option<BreakerSettings>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Closed {
        failures_in_a_row: u32,
        /// Whether each of the last attempts failed.
        last: VecDeque<bool>,
    },
    Open {
        until: Instant,
        rest: Duration,
    },
    Probing {
        rest: Duration,
        /// The one attempt has begun.
        is_out: bool,
    },
}

const CLOSED: State = State::Closed { failures_in_a_row: 0, last: VecDeque::new() };

/// What may be asked for.
#[derive(Debug, PartialEq, Eq)]
enum Now {
    Everything,
    One,
    NotBefore(Instant),
    AfterTheProbe,
}

impl Breaker {
    pub(crate) fn new(route: &str, settings: Option<BreakerSettings>) -> Self {
        Self { route: route.to_owned(), settings, state: Mutex::new(CLOSED), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it stands, for people.
    pub(crate) fn standing(&self, clock: &dyn Clock) -> BreakerState {
        match *self.state() {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { until, .. } => {
                let left = until.saturating_duration_since(Instant::now());
                let until = clock.now().saturating_add(left).unwrap_or(Timestamp::MAX);
                // To the second: what is looked at again and again must not look new.
                BreakerState::Open { until: Timestamp::from_second(until.as_second()).unwrap_or(until) }
            }
            State::Probing { .. } => BreakerState::HalfOpen,
        }
    }

    /// Asks again at once, as if nothing had failed: a person says so.
    pub(crate) fn close(&self) {
        let before = std::mem::replace(&mut *self.state(), CLOSED);
        if !matches!(before, State::Closed { .. }) {
            tracing::warn!(route = self.route, "a person resumes the route: its destination is asked again");
        }
        self.changed.notify_waiters();
    }

    /// Waits until something may be asked for, and says how much of `wanted`.
    /// Cancel-safe.
    pub(crate) async fn ready(&self, wanted: usize) -> usize {
        loop {
            let changed = self.changed.notified();
            let now = self.look(Instant::now());
            match now {
                Now::Everything => return wanted,
                Now::One => return wanted.min(1),
                Now::NotBefore(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = changed => {}
                },
                Now::AfterTheProbe => changed.await,
            }
        }
    }

    fn look(&self, now: Instant) -> Now {
        let mut state = self.state();
        if let State::Open { until, rest } = *state {
            if now < until {
                return Now::NotBefore(until);
            }
            *state = State::Probing { rest, is_out: false };
        }
        match *state {
            State::Probing { is_out: true, .. } => Now::AfterTheProbe,
            State::Probing { is_out: false, .. } => Now::One,
            _ => Now::Everything,
        }
    }

    /// An attempt begins: says whether it is the one that asks.
    fn begin(&self) -> bool {
        match &mut *self.state() {
            State::Probing { is_out, .. } if !*is_out => {
                *is_out = true;
                true
            }
            _ => false,
        }
    }

    /// The attempt that asked is over, and nobody knows how it ended.
    fn give_up(&self) {
        if let State::Probing { is_out, .. } = &mut *self.state() {
            *is_out = false;
            self.changed.notify_waiters();
        }
    }

    /// An attempt ended, well or not.
    fn ended(&self, failed: bool, is_probe: bool) {
        let Some(settings) = &self.settings else { return };
        let mut state = self.state();
        let before = std::mem::replace(&mut *state, CLOSED);
        let was_open = !matches!(before, State::Closed { .. });
        *state = after(before, failed, is_probe, settings, Instant::now());
        self.say(was_open, &state);
        self.changed.notify_waiters();
    }

    fn say(&self, was_open: bool, state: &State) {
        let route = &self.route;
        match state {
            State::Open { rest, .. } if !was_open => {
                tracing::error!(route, rest = ?rest, "the destination fails: it is left alone, events wait in the queue");
            }
            State::Open { rest, .. } => tracing::warn!(route, rest = ?rest, "the destination still fails"),
            State::Closed { .. } if was_open => tracing::info!(route, "the destination is back"),
            _ => {}
        }
    }
}

/// One attempt, as the breaker knows it. It is over when this is dropped, also by
/// a panic.
#[derive(Debug)]
pub(crate) struct Begun {
    breaker: Arc<Breaker>,
    is_probe: bool,
    is_ended: Cell<bool>,
}

impl Begun {
    pub(crate) fn on(breaker: &Arc<Breaker>) -> Self {
        Self { breaker: Arc::clone(breaker), is_probe: breaker.begin(), is_ended: Cell::new(false) }
    }

    /// It ended, well or not.
    pub(crate) fn ended(self, failed: bool) {
        self.is_ended.set(true);
        self.breaker.ended(failed, self.is_probe);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.is_probe && !self.is_ended.get() {
            self.breaker.give_up();
        }
    }
}

/// The state after an attempt.
fn after(state: State, failed: bool, is_probe: bool, settings: &BreakerSettings, now: Instant) -> State {
    match state {
        State::Closed { failures_in_a_row, mut last } => {
            let failures_in_a_row = if failed { failures_in_a_row + 1 } else { 0 };
            last.push_back(failed);
            while last.len() > settings.of.get() as usize {
                last.pop_front();
            }
            let rest = settings.rest.0;
            match failures_in_a_row >= settings.failures.get() || is_over_share(&last, settings) {
                true => State::Open { until: now + rest, rest },
                false => State::Closed { failures_in_a_row, last },
            }
        }
        // Attempts that began before it opened say nothing new when they fail.
        State::Open { .. } if failed => state,
        State::Probing { .. } if failed && !is_probe => state,
        State::Probing { rest, .. } if failed => {
            let rest = (rest * 2).min(settings.longest_rest.0);
            State::Open { until: now + rest, rest }
        }
        State::Open { .. } | State::Probing { .. } => CLOSED,
    }
}

fn is_over_share(last: &VecDeque<bool>, settings: &BreakerSettings) -> bool {
    let failures = last.iter().filter(|failed| **failed).count();
    last.len() == settings.of.get() as usize && failures * 100 >= last.len() * settings.percent.get() as usize
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use settings::Time;

    use super::*;

    fn breaker(failures: u32, percent: u32, of: u32) -> Arc<Breaker> {
        let number = |number| NonZeroU32::new(number).unwrap();
        let settings = BreakerSettings {
            failures: number(failures),
            percent: number(percent),
            of: number(of),
            rest: Time(Duration::from_secs(10)),
            longest_rest: Time(Duration::from_secs(30)),
        };
        Arc::new(Breaker::new("r", Some(settings)))
    }

    fn is_open(breaker: &Breaker) -> bool {
        matches!(*breaker.state(), State::Open { .. })
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_one_attempt_at_a_time_asks() {
        let breaker = breaker(3, 100, 100);
        for failed in [true, true, false, true, true] {
            Begun::on(&breaker).ended(failed);
        }
        assert_eq!(breaker.ready(5).await, 5, "not in a row");
        Begun::on(&breaker).ended(true);
        for rest in [10, 20, 30, 30] {
            let began = Instant::now();
            assert_eq!(breaker.ready(5).await, 1);
            assert_eq!(began.elapsed().as_secs(), rest);
            let (probe, late) = (Begun::on(&breaker), Begun::on(&breaker));
            late.ended(true);
            assert_eq!(
                breaker.look(Instant::now()),
                Now::AfterTheProbe,
                "one that began before says nothing"
            );
            probe.ended(true);
        }
        assert_eq!(breaker.ready(5).await, 1);
        Begun::on(&breaker).ended(false);
        assert_eq!(breaker.ready(5).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_of_the_last_attempts_opens_it() {
        let breaker = breaker(100, 50, 4);
        for failed in [true, false, false, true] {
            assert!(!is_open(&breaker), "too few to say");
            Begun::on(&breaker).ended(failed);
        }
        assert!(is_open(&breaker));
        Begun::on(&breaker).ended(false);
        assert!(!is_open(&breaker), "one that was still on its way came through");
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_without_an_end_is_followed_by_another() {
        let breaker = breaker(1, 100, 100);
        Begun::on(&breaker).ended(true);
        assert_eq!(breaker.ready(5).await, 1);
        drop(Begun::on(&breaker));
        assert_eq!(breaker.ready(5).await, 1, "its lease was lost: nobody knows");
    }

    #[tokio::test(start_paused = true)]
    async fn a_person_closes_it_and_a_probe_that_was_out_says_nothing_more() {
        let breaker = breaker(1, 100, 100);
        Begun::on(&breaker).ended(true);
        let waiting = Arc::clone(&breaker);
        let began = Instant::now();
        let (ready, ()) = tokio::join!(waiting.ready(5), async { breaker.close() });
        assert_eq!((ready, began.elapsed().as_secs()), (5, 0));
        Begun::on(&breaker).ended(true);
        assert_eq!(breaker.ready(5).await, 1);
        let probe = Begun::on(&breaker);
        breaker.close();
        drop(probe);
        assert_eq!(breaker.ready(5).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn without_settings_it_never_opens() {
        let breaker = Arc::new(Breaker::new("r", None));
        for _ in 0..1000 {
            Begun::on(&breaker).ended(true);
        }
        assert_eq!(breaker.ready(5).await, 5);
    }
}
