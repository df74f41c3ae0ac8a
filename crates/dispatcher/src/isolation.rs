//! Isolation: runs deliveries concurrently, and a suspect exclusively.
//!
//! A delivery that was in flight at two crashes may have caused them. Run exclusively, it either
//! crashes the process again, and is known to be the cause, or it does not, and is cleared. All
//! others wait meanwhile, so that both the wait for the end of the others and the run itself are
//! paid from a budget: a tenth of any ten minutes. A suspect that can't run exclusively in time
//! runs beside others, and nobody is blamed. After five crashes it is not run like that any more:
//! it would go on crashing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Number of crashes from which a delivery is a suspect.
const SUSPECT_AFTER: u32 = 2;

/// Number of crashes from which a delivery runs exclusively or not at all.
const ALONE_OR_NOT_AT_ALL_AFTER: u32 = 5;

/// Longest time in any [`WINDOW`] for which others are kept out, by all suspects together.
const BUDGET: Duration = Duration::from_mins(1);
const WINDOW: Duration = Duration::from_mins(10);

/// Longest time that a suspect waits for an exclusive run, turn and budget included. It takes a
/// permit of its route meanwhile.
const EXCLUSIVE_WITHIN: Duration = Duration::from_mins(2);

/// Longest time for which others are kept out until running attempts have ended. If they have
/// not, others get as long to work undisturbed, and twice as long the next time.
const DRAIN_FOR: Duration = Duration::from_secs(4);

/// Length of an exclusive run: a delivery that crashes the process mostly does so soon.
const ALONE_FOR: Duration = Duration::from_secs(5);

/// Length of the run of a delivery that becomes a dead letter if it can't be cleared.
const LAST_CHANCE_ALONE_FOR: Duration = Duration::from_secs(30);

/// Longest time for recording that others run beside it again.
const RELEASE_WITHIN: Duration = Duration::from_secs(1);

/// Permits to run attempts in this process. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Isolation(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Notify,
    /// Turn to run exclusively, for which suspects queue.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of running attempts, without the exclusive one.
    running: usize,
    exclusion: Option<Exclusion>,
    /// Begin and end of the exclusions of the last [`WINDOW`].
    spent: VecDeque<(Instant, Instant)>,
    /// Number of exclusions so far.
    count: u64,
}

/// A time in which others are kept out: until running attempts have ended, and then while the
/// suspect runs exclusively.
#[derive(Clone, Copy, Debug)]
struct Exclusion {
    number: u64,
    since: Instant,
    /// Others are let in at this time, whatever the suspect does.
    until: Instant,
    is_run: bool,
}

/// A delivery that crashed the process too often to be run beside others, and could not be run
/// exclusively.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotProvenAlone;

/// Permit to run an attempt, given back when it is dropped.
#[derive(Debug)]
pub(crate) enum RunPermit {
    #[expect(dead_code, reason = "it is there to be dropped")]
    Shared(SharedRun),
    Exclusive(
        ExclusiveRun,
        #[expect(dead_code, reason = "it is there to be dropped")] OwnedMutexGuard<()>,
    ),
    /// Placeholder within a change of the permit; never seen outside.
    Changing,
}

#[derive(Debug)]
pub(crate) struct SharedRun(Isolation);

#[derive(Debug)]
pub(crate) struct ExclusiveRun {
    isolation: Isolation,
    number: u64,
    /// Whether its run has begun: before that it only keeps others out.
    is_run: bool,
}

impl Isolation {
    /// Waits for the permit to run a delivery that was in flight at this number of crashes.
    /// Cancel-safe.
    pub(crate) async fn enter(&self, crash_count: u32) -> Result<RunPermit, NotProvenAlone> {
        if !Self::is_suspect(crash_count) {
            return Ok(RunPermit::Shared(self.shared().await));
        }
        let is_last_chance = crash_count >= ALONE_OR_NOT_AT_ALL_AFTER;
        let alone_for = if is_last_chance {
            LAST_CHANCE_ALONE_FOR
        } else {
            ALONE_FOR
        };
        match timeout(EXCLUSIVE_WITHIN, self.exclusive(alone_for)).await {
            Ok((run, turn)) => Ok(RunPermit::Exclusive(run, turn)),
            Err(_) if is_last_chance => Err(NotProvenAlone),
            Err(_) => Ok(RunPermit::Shared(self.shared().await)),
        }
    }

    /// Returns the permit to run a delivery that was in flight at this number of crashes, as
    /// [`Self::enter`] does; but `None` if it is no suspect and would have to wait for one. A
    /// delivery that waits here looks as if it were attempted: if the suspect crashes the process,
    /// that would be counted against it.
    pub(crate) async fn enter_unless_kept_out(
        &self,
        crash_count: u32,
    ) -> Option<Result<RunPermit, NotProvenAlone>> {
        if Self::is_suspect(crash_count) {
            return Some(self.enter(crash_count).await);
        }
        let is_kept_out = self.try_shared().is_some();
        (!is_kept_out).then(|| Ok(RunPermit::Shared(SharedRun(self.clone()))))
    }

    /// Waits until nobody is kept out. Cancel-safe.
    pub(crate) async fn opened(&self) {
        loop {
            let changed = self.0.changed.notified();
            let Some(exclusion) = self.lock().exclusion else {
                return;
            };
            let _ = timeout_at(exclusion.until, changed).await;
        }
    }

    /// Waits until others than a suspect are kept out. Cancel-safe.
    pub(crate) async fn closed(&self) {
        loop {
            let changed = self.0.changed.notified();
            if self.lock().exclusion.is_some() {
                return;
            }
            changed.await;
        }
    }

    /// Whether a delivery that was in flight at this number of crashes waits for an exclusive run.
    pub(crate) fn is_suspect(crash_count: u32) -> bool {
        crash_count >= SUSPECT_AFTER
    }

    async fn shared(&self) -> SharedRun {
        loop {
            let changed = self.0.changed.notified();
            let Some(until) = self.try_shared() else {
                return SharedRun(self.clone());
            };
            let _ = timeout_at(until, changed).await;
        }
    }

    /// Counts a run beside others; returns until when they are kept out if they are, and counts
    /// nothing then.
    fn try_shared(&self) -> Option<Instant> {
        let mut state = self.lock();
        let exclusion = state.exclusion;
        state.running += usize::from(exclusion.is_none());
        exclusion.map(|exclusion| exclusion.until)
    }

    /// Waits for its turn, then until nothing else runs. Between tries others work undisturbed.
    async fn exclusive(&self, alone_for: Duration) -> (ExclusiveRun, OwnedMutexGuard<()>) {
        let turn = Arc::clone(&self.0.turn).lock_owned().await;
        let mut pause = DRAIN_FOR;
        loop {
            self.budget().await;
            if let Some(run) = self.drain(alone_for).await {
                return (run, turn);
            }
            // Running attempts may end by themselves while nothing new begins: then waiting costs
            // nobody anything.
            let _ = timeout(pause, self.idle()).await;
            pause *= 2;
        }
    }

    /// Waits until the budget is enough for a drain and a run.
    async fn budget(&self) {
        let enough = DRAIN_FOR + ALONE_FOR + RELEASE_WITHIN;
        loop {
            let left = self.lock().budget(Instant::now());
            if left >= enough {
                return;
            }
            // The budget grows no faster than time passes.
            sleep(enough - left).await;
        }
    }

    /// Keeps others out until nothing runs, for as long as one try may take. `None` if something
    /// still does.
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
        let mut state = self.lock();
        let since = Instant::now();
        if state.exclusion.is_some() {
            return None;
        }
        state.count += 1;
        let number = state.count;
        state.exclusion = Some(Exclusion {
            number,
            since,
            until: since + DRAIN_FOR,
            is_run: false,
        });
        self.0.changed.notify_waiters();
        Some(ExclusiveRun {
            isolation: self.clone(),
            number,
            is_run: false,
        })
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
        state.exclusion = Some(Exclusion {
            number: exclusive.number,
            since,
            until,
            is_run: true,
        });
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

    /// Locks the state, after ending an exclusion whose time is over.
    fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(over) = state
            .exclusion
            .filter(|exclusion| exclusion.until <= Instant::now())
        {
            state.end(over.until);
            state.running += usize::from(over.is_run);
            self.0.changed.notify_waiters();
        }
        state
    }
}

impl State {
    fn of(&self, number: u64) -> Option<Exclusion> {
        self.exclusion
            .filter(|exclusion| exclusion.number == number)
    }

    fn end(&mut self, at: Instant) {
        if let Some(ended) = self.exclusion.take() {
            self.spent.push_back((ended.since, at));
        }
    }

    /// Returns how much of the budget is left for an exclusion that begins now.
    fn budget(&mut self, now: Instant) -> Duration {
        while self
            .spent
            .front()
            .is_some_and(|(_, to)| now.saturating_duration_since(*to) >= WINDOW)
        {
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
    /// Lets others run beside it from now on.
    pub(crate) fn downgrade(&mut self) {
        *self = match std::mem::replace(self, Self::Changing) {
            Self::Exclusive(run, _) => Self::Shared(run.into_shared()),
            permit => permit,
        };
    }

    /// Returns until when others are kept out, if they are: then there is still time to record
    /// that they run beside it.
    pub(crate) fn exclusive_until(&self) -> Option<Instant> {
        let Self::Exclusive(run, _) = self else {
            return None;
        };
        let exclusion = run.isolation.lock().of(run.number)?;
        Some(exclusion.until - RELEASE_WITHIN)
    }
}

impl ExclusiveRun {
    fn into_shared(self) -> SharedRun {
        let isolation = self.isolation.clone();
        isolation.lock().running += 1;
        // Dropping ends it as if there were no shared run, which is counted by now.
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
