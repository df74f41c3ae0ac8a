//! Lets deliveries run side by side, and one that may have killed the process alone.
//!
//! What was in flight when the process died twice may have killed it. Run with nothing
//! beside it, it either kills the process again, and it is known who did it, or it does
//! not, and is cleared. Everybody else waits meanwhile, so both the waiting for the others'
//! end and the run itself are paid from a budget: a tenth of any ten minutes. A suspect
//! that can't run alone in time runs beside others, and nobody is blamed. After five
//! crashes it is not run like that any more: it would go on killing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Crashes after which a delivery is a suspect.
const SUSPECT_AFTER: u32 = 2;

/// Crashes after which a delivery runs alone or not at all.
const ALONE_OR_NOT_AT_ALL_AFTER: u32 = 5;

/// How long others may be kept out in any [`WINDOW`], by all suspects together.
const BUDGET: Duration = Duration::from_mins(1);
const WINDOW: Duration = Duration::from_mins(10);

/// How long a suspect waits for an exclusive run, turn and budget included. It takes up one
/// of its route's places meanwhile.
const EXCLUSIVE_WITHIN: Duration = Duration::from_mins(2);

/// How long others are kept out until what runs has ended. Then they get as long to work
/// undisturbed, twice as long the next time.
const DRAIN_FOR: Duration = Duration::from_secs(4);

/// How long a suspect runs alone: what kills the process mostly does so soon.
const ALONE_FOR: Duration = Duration::from_secs(5);

/// The same for what would become a dead letter if it were not proven.
const LAST_CHANCE_ALONE_FOR: Duration = Duration::from_secs(30);

/// How long it may take to record that others run beside it again.
const RELEASE_WITHIN: Duration = Duration::from_secs(1);

/// Who runs in this process. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Isolation(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
    /// Whose turn it is to be alone: suspects queue for it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// How many run, without the one that runs alone.
    running: usize,
    exclusion: Option<Exclusion>,
    /// Begin and end of the exclusions of the last [`WINDOW`].
    spent: VecDeque<(Instant, Instant)>,
    /// How many exclusions there were.
    count: u64,
}

/// Others are kept out: until what runs has ended, and then while the suspect runs alone.
#[derive(Clone, Copy, Debug)]
struct Exclusion {
    number: u64,
    since: Instant,
    /// Others come in then, whatever the suspect does.
    until: Instant,
    is_run: bool,
}

/// A delivery that crashed the process too often to be run beside others, and could not be
/// run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotProvenAlone;

/// The right to run; dropping it lets the next in.
#[derive(Debug)]
pub(crate) enum RunPermit {
    #[expect(dead_code, reason = "it is there to be dropped")]
    Shared(SharedRun),
    Exclusive(ExclusiveRun, #[expect(dead_code, reason = "it is there to be dropped")] OwnedMutexGuard<()>),
    /// Between the two, for no time at all.
    Changing,
}

#[derive(Debug)]
pub(crate) struct SharedRun(Isolation);

#[derive(Debug)]
pub(crate) struct ExclusiveRun {
    isolation: Isolation,
    number: u64,
    /// Whether it has come to its run: before that it only keeps others out.
    is_run: bool,
}

impl Isolation {
    /// Waits for the right to run what was in flight at so many crashes. Cancel-safe.
    pub(crate) async fn enter(&self, crash_count: u32) -> Result<RunPermit, NotProvenAlone> {
        if crash_count < SUSPECT_AFTER {
            return Ok(RunPermit::Shared(self.shared().await));
        }
        let is_last_chance = crash_count >= ALONE_OR_NOT_AT_ALL_AFTER;
        let alone_for = if is_last_chance { LAST_CHANCE_ALONE_FOR } else { ALONE_FOR };
        match timeout(EXCLUSIVE_WITHIN, self.exclusive(alone_for)).await {
            Ok((run, turn)) => Ok(RunPermit::Exclusive(run, turn)),
            Err(_) if is_last_chance => Err(NotProvenAlone),
            Err(_) => Ok(RunPermit::Shared(self.shared().await)),
        }
    }

    async fn shared(&self) -> SharedRun {
        loop {
            let changed = self.0.changed.notified();
            let Some(until) = self.try_shared() else { return SharedRun(self.clone()) };
            let _ = timeout_at(until, changed).await;
        }
    }

    /// Until when others are kept out, if they are.
    fn try_shared(&self) -> Option<Instant> {
        let mut state = self.lock();
        let exclusion = state.exclusion;
        state.running += usize::from(exclusion.is_none());
        exclusion.map(|exclusion| exclusion.until)
    }

    /// Waits for its turn, then until nothing else runs. In between others work undisturbed.
    async fn exclusive(&self, alone_for: Duration) -> (ExclusiveRun, OwnedMutexGuard<()>) {
        let turn = Arc::clone(&self.0.turn).lock_owned().await;
        let mut pause = DRAIN_FOR;
        loop {
            self.budget().await;
            if let Some(run) = self.drain(alone_for).await {
                return (run, turn);
            }
            // What runs may end by itself, and nobody new has come: that costs nobody anything.
            let _ = timeout(pause, self.idle()).await;
            pause *= 2;
        }
    }

    /// Waits until the budget is enough for a try and a run.
    async fn budget(&self) {
        let enough = DRAIN_FOR + ALONE_FOR + RELEASE_WITHIN;
        loop {
            let left = self.lock().budget(Instant::now());
            if left >= enough {
                return;
            }
            // It grows no faster than time passes.
            sleep(enough - left).await;
        }
    }

    /// Keeps others out for a while, until nothing runs. `None` if something still does.
    async fn drain(&self, alone_for: Duration) -> Option<ExclusiveRun> {
        let mut exclusive = self.exclude()?;
        loop {
            let changed = self.0.changed.notified();
            let until = self.lock().of(exclusive.number)?.until;
            if self.begin_run(&mut exclusive, alone_for) {
                return Some(exclusive);
            }
            let _ = timeout_at(until, changed).await;
        }
    }

    fn exclude(&self) -> Option<ExclusiveRun> {
        let (mut state, since) = (self.lock(), Instant::now());
        if state.exclusion.is_some() {
            return None;
        }
        state.count += 1;
        let number = state.count;
        state.exclusion = Some(Exclusion { number, since, until: since + DRAIN_FOR, is_run: false });
        Some(ExclusiveRun { isolation: self.clone(), number, is_run: false })
    }

    /// Begins the exclusive run if nothing else runs.
    fn begin_run(&self, exclusive: &mut ExclusiveRun, alone_for: Duration) -> bool {
        let mut state = self.lock();
        let is_idle = state.running == 0;
        let now = Instant::now();
        let Some(Exclusion { since, .. }) = state.of(exclusive.number).filter(|_| is_idle) else {
            return false;
        };
        let until = (since + state.budget(since)).min(now + alone_for + RELEASE_WITHIN);
        state.exclusion = Some(Exclusion { number: exclusive.number, since, until, is_run: true });
        exclusive.is_run = true;
        true
    }

    async fn idle(&self) {
        loop {
            let changed = self.0.changed.notified();
            let is_idle = {
                let state = self.lock();
                state.running == 0 && state.exclusion.is_none()
            };
            if is_idle {
                return;
            }
            changed.await;
        }
    }

    /// The state as it is now: exclusions whose time is over have ended.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(over) = state.exclusion.filter(|exclusion| exclusion.until <= Instant::now()) {
            state.end(over.until);
            state.running += usize::from(over.is_run);
            self.0.changed.notify_waiters();
        }
        state
    }
}

impl State {
    fn of(&self, number: u64) -> Option<Exclusion> {
        self.exclusion.filter(|exclusion| exclusion.number == number)
    }

    fn end(&mut self, at: Instant) {
        if let Some(ended) = self.exclusion.take() {
            self.spent.push_back((ended.since, at));
        }
    }

    /// What is left of the budget for an exclusion that begins now.
    fn budget(&mut self, now: Instant) -> Duration {
        while self.spent.front().is_some_and(|(_, to)| now.saturating_duration_since(*to) >= WINDOW) {
            self.spent.pop_front();
        }
        let spent = self.spent.iter().map(|(from, to)| {
            let in_window = WINDOW.saturating_sub(now.saturating_duration_since(*to));
            (*to - *from).min(in_window)
        });
        BUDGET.saturating_sub(spent.sum())
    }
}

impl RunPermit {
    /// Others may run beside it from now on.
    pub(crate) fn let_others_in(&mut self) {
        *self = match std::mem::replace(self, Self::Changing) {
            Self::Exclusive(run, _) => Self::Shared(run.into_shared()),
            permit => permit,
        };
    }

    /// Until when others are kept out, if they are: after that it can be recorded yet that
    /// they run beside it.
    pub(crate) fn exclusive_until(&self) -> Option<Instant> {
        let Self::Exclusive(run, _) = self else { return None };
        let exclusion = run.isolation.lock().of(run.number)?;
        Some(exclusion.until - RELEASE_WITHIN)
    }
}

impl ExclusiveRun {
    fn into_shared(self) -> SharedRun {
        let isolation = self.isolation.clone();
        isolation.lock().running += 1;
        // It ends as it would without a successor, who is counted by now.
        drop(self);
        SharedRun(isolation)
    }
}

impl Drop for ExclusiveRun {
    fn drop(&mut self) {
        let mut state = self.isolation.lock();
        match state.of(self.number) {
            Some(_) => state.end(Instant::now()),
            // Others came in before: it was counted among them.
            None => state.running -= usize::from(self.is_run),
        }
        self.isolation.0.changed.notify_waiters();
    }
}

impl Drop for SharedRun {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
        self.0.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
