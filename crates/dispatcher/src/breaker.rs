//! The breaker: begins no attempts while a destination fails, and probes now and then whether it
//! is back. Deliveries that are not fetched stay in the queue and use up no attempt.
//!
//! A destination is taken to fail when different events do. One event that fails however often it
//! is tried says nothing of the others, and must not hold them up. A destination that can't be
//! asked, for want of something here, is left alone from the first attempt on that finds it so.
//!
//! ```text
//! closed ──events fail──▶ open ──rested──▶ probing ──one attempt ends well──▶ closed
//!                          ▲                  │
//!                          └──it fails: longer cooldown
//! ```

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_model::{Clock, EventId, Timestamp};
use queue::BreakerState;
use settings::BreakerSettings;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The breaker of one route in this process.
#[derive(Debug)]
pub(crate) struct Breaker {
    route: String,
    settings: Option<BreakerSettings>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Holds the attempts that ended lately.
    Closed(VecDeque<EndedAttempt>),
    Open {
        until: Instant,
        cooldown: Duration,
    },
    Probing {
        cooldown: Duration,
        /// Whether the one attempt has begun.
        is_out: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EndedAttempt {
    event: EventId,
    at: Instant,
    failed: bool,
}

const CLOSED: State = State::Closed(VecDeque::new());

/// Shortest rest after an attempt that could not ask, and the first where it does not say how
/// long that holds.
const FIRST_REST: Duration = Duration::from_secs(1);

/// Number of deliveries that may be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FetchQuota {
    /// As many as there are permits.
    AsEver,
    /// One delivery, to probe whether the destination is back.
    ForAProbe,
}

#[derive(Debug, PartialEq, Eq)]
enum Now {
    Everything,
    One,
    NotBefore(Instant),
    AfterTheProbe,
}

impl Breaker {
    pub(crate) fn new(route: &str, settings: Option<BreakerSettings>) -> Self {
        Self {
            route: route.to_owned(),
            settings,
            state: Mutex::new(CLOSED),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the state, for people.
    pub(crate) fn status(&self, clock: &dyn Clock) -> BreakerState {
        match *self.state() {
            State::Closed(_) => BreakerState::Closed,
            State::Open { until, .. } => {
                let left = until.saturating_duration_since(Instant::now());
                let until = clock.now().saturating_add(left).unwrap_or(Timestamp::MAX);
                // To the second: a state that has not changed must not look new each time it is
                // read.
                BreakerState::Open {
                    until: Timestamp::from_second(until.as_second()).unwrap_or(until),
                }
            }
            State::Probing { .. } => BreakerState::HalfOpen,
        }
    }

    /// Closes at once, as if nothing had failed, because a person says so.
    pub(crate) fn close(&self) {
        let before = std::mem::replace(&mut *self.state(), CLOSED);
        if !matches!(before, State::Closed(_)) {
            tracing::warn!(
                route = self.route,
                "a person resumes the route: its destination is asked again"
            );
        }
        self.changed.notify_waiters();
    }

    /// Whether the destination gets no attempts, or one at a time.
    pub(crate) fn is_open(&self) -> bool {
        !matches!(*self.state(), State::Closed(_))
    }

    /// Waits until something may be fetched, and returns how much. Cancel-safe.
    pub(crate) async fn ready(&self) -> FetchQuota {
        loop {
            let changed = self.changed.notified();
            let now = self.look(Instant::now());
            match now {
                Now::Everything => return FetchQuota::AsEver,
                Now::One => return FetchQuota::ForAProbe,
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
        if let State::Open { until, cooldown } = *state {
            if now < until {
                return Now::NotBefore(until);
            }
            *state = State::Probing {
                cooldown,
                is_out: false,
            };
        }
        match *state {
            State::Probing { is_out: true, .. } => Now::AfterTheProbe,
            State::Probing { is_out: false, .. } => Now::One,
            _ => Now::Everything,
        }
    }

    /// Notes that an attempt begins; returns whether it is the probe.
    fn begin(&self) -> bool {
        match &mut *self.state() {
            State::Probing { is_out, .. } if !*is_out => {
                *is_out = true;
                true
            }
            _ => false,
        }
    }

    /// Notes that the probe is over without a known result.
    fn give_up(&self) {
        if let State::Probing { is_out, .. } = &mut *self.state() {
            *is_out = false;
            self.changed.notify_waiters();
        }
    }

    /// Notes that an attempt ended, well or not.
    fn ended(&self, event: EventId, failed: bool, is_probe: bool) {
        let Some(settings) = &self.settings else {
            return;
        };
        let ended = EndedAttempt {
            event,
            at: Instant::now(),
            failed,
        };
        let mut state = self.state();
        let before = std::mem::replace(&mut *state, CLOSED);
        let was_open = !matches!(before, State::Closed(_));
        *state = after(before, ended, is_probe, settings);
        self.say(was_open, &state);
        self.changed.notify_waiters();
    }

    /// Notes that an attempt could not ask the destination, and that none can for so long.
    fn rest(&self, wait: Option<Duration>, is_probe: bool) {
        let Some(settings) = &self.settings else {
            return self.give_up();
        };
        let mut state = self.state();
        let (first, cooldown) = match &*state {
            State::Closed(_) => (FIRST_REST, settings.cooldown),
            State::Probing { cooldown, .. } if is_probe => {
                let longer = (*cooldown * 2).min(settings.max_cooldown);
                (longer, longer)
            }
            State::Open { .. } | State::Probing { .. } => return,
        };
        // A wait of nothing would be a busy loop.
        let rest = wait.unwrap_or(first).max(FIRST_REST);
        let rest = rest.min(settings.max_cooldown);
        let until = Instant::now() + rest;
        *state = State::Open { until, cooldown };
        tracing::warn!(route = self.route, rest = ?rest, "the destination can't be asked now: events wait in the queue");
        self.changed.notify_waiters();
    }

    fn say(&self, was_open: bool, state: &State) {
        let route = &self.route;
        match state {
            State::Open { cooldown, .. } if !was_open => {
                tracing::error!(route, cooldown = ?cooldown, "the destination fails: it is left alone, events wait in the queue");
            }
            State::Open { cooldown, .. } => {
                tracing::warn!(route, cooldown = ?cooldown, "the destination still fails")
            }
            State::Closed(_) if was_open => tracing::info!(route, "the destination is back"),
            _ => {}
        }
    }
}

/// An attempt, as the breaker knows it. It is over when this is dropped, also by a panic.
#[derive(Debug)]
pub(crate) struct BreakerAttempt {
    breaker: Arc<Breaker>,
    event: EventId,
    is_probe: bool,
    is_ended: Cell<bool>,
}

impl BreakerAttempt {
    pub(crate) fn on(breaker: &Arc<Breaker>, event: EventId) -> Self {
        let is_probe = breaker.begin();
        Self {
            breaker: Arc::clone(breaker),
            event,
            is_probe,
            is_ended: Cell::new(false),
        }
    }

    /// Notes that it ended, well or not.
    pub(crate) fn ended(self, failed: bool) {
        self.is_ended.set(true);
        self.breaker.ended(self.event, failed, self.is_probe);
    }

    /// Notes that the destination could not be asked, and for how long that holds, if it is
    /// known. Without a rest, each waiting event would be fetched, and fare the same.
    pub(crate) fn not_asked(self, wait: Option<Duration>) {
        self.is_ended.set(true);
        self.breaker.rest(wait, self.is_probe);
    }
}

impl Drop for BreakerAttempt {
    fn drop(&mut self) {
        if self.is_probe && !self.is_ended.get() {
            self.breaker.give_up();
        }
    }
}

/// Returns the state after an attempt.
fn after(state: State, ended: EndedAttempt, is_probe: bool, settings: &BreakerSettings) -> State {
    match state {
        State::Closed(mut last) => {
            last.push_back(ended);
            forget(&mut last, ended.at, settings);
            if !ended.failed || !is_destination_failing(&last, settings) {
                return State::Closed(last);
            }
            let cooldown = settings.cooldown;
            State::Open {
                until: ended.at + cooldown,
                cooldown,
            }
        }
        // Failures of attempts that began before it opened say nothing new.
        State::Open { .. } if ended.failed => state,
        State::Probing { .. } if ended.failed && !is_probe => state,
        State::Probing { cooldown, .. } if ended.failed => {
            let cooldown = (cooldown * 2).min(settings.max_cooldown);
            State::Open {
                until: ended.at + cooldown,
                cooldown,
            }
        }
        State::Open { .. } | State::Probing { .. } => CLOSED,
    }
}

/// Removes attempts that ended too long ago to count.
fn forget(last: &mut VecDeque<EndedAttempt>, now: Instant, settings: &BreakerSettings) {
    let is_old = |ended: &EndedAttempt| now.duration_since(ended.at) > settings.window;
    while last.len() > settings.samples.get() as usize || last.front().is_some_and(is_old) {
        last.pop_front();
    }
}

/// Whether enough different events failed, and enough of all that were attempted. An event counts
/// once, as its last attempt ended.
fn is_destination_failing(last: &VecDeque<EndedAttempt>, settings: &BreakerSettings) -> bool {
    let by_event: HashMap<EventId, bool> = last
        .iter()
        .map(|ended| (ended.event, ended.failed))
        .collect();
    let failed = by_event.values().filter(|failed| **failed).count();
    failed >= settings.failures.get() as usize
        && failed * 100 >= by_event.len() * settings.percent.get() as usize
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use event_model::Environment;

    use super::*;

    fn with(change: impl FnOnce(&mut BreakerSettings)) -> Arc<Breaker> {
        let mut settings = BreakerSettings {
            cooldown: Duration::from_secs(10),
            max_cooldown: Duration::from_secs(30),
            ..BreakerSettings::default()
        };
        change(&mut settings);
        Arc::new(Breaker::new("r", Some(settings)))
    }

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    fn event(number: u32) -> EventId {
        EventId::of(Environment::Sandbox, &number.to_be_bytes())
    }

    fn begin(breaker: &Arc<Breaker>, number: u32) -> BreakerAttempt {
        BreakerAttempt::on(breaker, event(number))
    }

    /// Fails one attempt of each of these events.
    fn fail(breaker: &Arc<Breaker>, events: std::ops::Range<u32>) {
        events.for_each(|number| begin(breaker, number).ended(true));
    }

    #[tokio::test(start_paused = true)]
    async fn while_nothing_can_be_asked_it_rests_and_one_attempt_at_a_time_tries() {
        let breaker = with(|_| {});
        begin(&breaker, 1).not_asked(None);
        assert!(breaker.is_open());
        let began = Instant::now();
        assert_eq!(breaker.ready().await, FetchQuota::ForAProbe);
        assert_eq!(began.elapsed(), FIRST_REST);
        // The next rests are longer and longer.
        for rest in [20, 30, 30] {
            let probed = Instant::now();
            begin(&breaker, 2).not_asked(None);
            assert_eq!(breaker.ready().await, FetchQuota::ForAProbe);
            assert_eq!(probed.elapsed(), Duration::from_secs(rest));
        }
        // As long as is said, within the bound of rests.
        for (said, rest) in [(0, 1), (5, 5), (3600, 30)] {
            let probed = Instant::now();
            begin(&breaker, 3).not_asked(Some(Duration::from_secs(said)));
            assert_eq!(breaker.ready().await, FetchQuota::ForAProbe);
            assert_eq!(probed.elapsed(), Duration::from_secs(rest));
        }
        begin(&breaker, 4).ended(false);
        assert_eq!(breaker.ready().await, FetchQuota::AsEver);
    }

    #[tokio::test(start_paused = true)]
    async fn five_failing_events_open_it_and_one_attempt_at_a_time_asks() {
        let breaker = with(|_| {});
        fail(&breaker, 0..4);
        assert_eq!(breaker.ready().await, FetchQuota::AsEver, "too few to say");
        fail(&breaker, 4..5);
        for cooldown in [10, 20, 30, 30] {
            let began = Instant::now();
            assert_eq!(breaker.ready().await, FetchQuota::ForAProbe);
            assert_eq!(began.elapsed().as_secs(), cooldown);
            let probe = begin(&breaker, 7);
            let late = begin(&breaker, 8);
            late.ended(true);
            assert_eq!(
                breaker.look(Instant::now()),
                Now::AfterTheProbe,
                "one that began before says nothing"
            );
            probe.ended(true);
        }
        assert_eq!(breaker.ready().await, FetchQuota::ForAProbe);
        begin(&breaker, 9).ended(false);
        assert_eq!(breaker.ready().await, FetchQuota::AsEver);
    }

    #[tokio::test(start_paused = true)]
    async fn one_event_that_fails_for_ever_never_opens_it() {
        let breaker = with(|_| {});
        for attempt in 0..1000 {
            fail(&breaker, 0..1);
            assert!(!breaker.is_open(), "after {attempt} attempts of one event");
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        for _ in 0..100 {
            fail(&breaker, 0..4);
        }
        assert!(!breaker.is_open(), "four are not five");
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_of_the_events_opens_it() {
        let breaker = with(|settings| settings.percent = number(50));
        (100..106).for_each(|number| begin(&breaker, number).ended(false));
        fail(&breaker, 0..5);
        assert!(!breaker.is_open(), "five of eleven");
        fail(&breaker, 5..6);
        assert!(breaker.is_open(), "six of twelve");
        begin(&breaker, 100).ended(false);
        assert!(
            !breaker.is_open(),
            "one that was still on its way came through"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_long_ago_does_not_count() {
        let breaker = with(|settings| settings.window = Duration::from_mins(1));
        for number in 0..50 {
            fail(&breaker, number..number + 1);
            assert!(!breaker.is_open(), "event {number}, one in twenty seconds");
            tokio::time::advance(Duration::from_secs(20)).await;
        }
        let breaker =
            with(|settings| (settings.samples, settings.percent) = (number(6), number(100)));
        fail(&breaker, 0..4);
        (100..105).for_each(|number| begin(&breaker, number).ended(false));
        fail(&breaker, 4..8);
        assert!(!breaker.is_open(), "of the last six, two came through");
        fail(&breaker, 8..10);
        assert!(breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_without_an_end_is_followed_by_another() {
        let breaker = with(|_| {});
        fail(&breaker, 0..5);
        assert_eq!(breaker.ready().await, FetchQuota::ForAProbe);
        drop(begin(&breaker, 5));
        assert_eq!(
            breaker.ready().await,
            FetchQuota::ForAProbe,
            "its lease was lost: nobody knows"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_person_closes_it_and_a_probe_that_was_out_says_nothing_more() {
        let breaker = with(|_| {});
        fail(&breaker, 0..5);
        let waiting = Arc::clone(&breaker);
        let began = Instant::now();
        let (ready, ()) = tokio::join!(waiting.ready(), async { breaker.close() });
        assert_eq!((ready, began.elapsed().as_secs()), (FetchQuota::AsEver, 0));
        fail(&breaker, 0..5);
        assert_eq!(breaker.ready().await, FetchQuota::ForAProbe);
        let probe = begin(&breaker, 5);
        breaker.close();
        drop(probe);
        assert_eq!(breaker.ready().await, FetchQuota::AsEver);
    }

    #[tokio::test(start_paused = true)]
    async fn without_settings_it_never_opens() {
        let breaker = Arc::new(Breaker::new("r", None));
        fail(&breaker, 0..1000);
        assert_eq!(breaker.ready().await, FetchQuota::AsEver);
    }
}
