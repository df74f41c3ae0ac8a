//! What becomes of a delivery after an attempt: a pure function of what
//! happened, how often, since when, and the route's settings.

use std::fmt;
use std::time::Duration;

use dispatch::{DispatchError, Done};
use event_model::EventId;
use queue::{DeadReason, Verdict};
use settings::RetrySettings;

/// Longest wait that a destination may ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// How much longer at most than it asks for, as a share.
const MAX_RETRY_AFTER_JITTER: f64 = 0.1;

/// How long at most, and at least, one event waits until it asks again for another of its id.
const LONGEST_WAIT_FOR_OTHER: Duration = Duration::from_secs(10);
const SHORTEST_WAIT_FOR_OTHER: Duration = Duration::from_millis(100);

/// What happened in an attempt.
#[derive(Debug)]
pub enum Ended {
    /// The dispatcher answered.
    Answered(Result<Done, DispatchError>),
    /// It was not asked: what the route wants to know of Fluent first is not there.
    NotAsked(DispatchError),
    /// It has the event, but who is to be told of that was not.
    NotTold(DispatchError),
    /// It was not asked, and need not be.
    Skipped(Skip),
    /// It was not asked yet: another of the event's id is attempted, for so long at most.
    Waiting(EventId, Duration),
    /// It was not asked, and will not be: a person has to look. Why, in words.
    Undeliverable(DeadReason, String),
    /// It did not answer before its deadline.
    TimedOut,
    /// It panicked.
    Panicked,
}

/// Why a destination need not have an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// The event's entity has moved on, and the route wants no such event.
    MovedOn,
    /// It has another that says the same: one was reconciled, and the other came late.
    Twin,
    /// The route's expression gave no answer once, and says no since it was mended.
    NotMatched,
    /// It has this one of the same Fluent id and name, and the route wants one of them.
    SameId(EventId),
}

impl Skip {
    /// A short code for metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::MovedOn => "moved-on",
            Self::Twin => "reconciled",
            Self::NotMatched => "not-matched",
            Self::SameId(_) => "same-id",
        }
    }
}

/// In words.
impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MovedOn => f.write_str("skipped: its entity has moved on"),
            Self::NotMatched => f.write_str("skipped: the route's match says no now"),
            Self::Twin => f.write_str("skipped: delivered before, as what was reconciled or came late"),
            Self::SameId(other) => {
                write!(f, "skipped: event {other} of the same Fluent id and name is delivered")
            }
        }
    }
}

impl Ended {
    /// Whether the destination failed; `None` where that is not known. One that will
    /// never take an event is well, and so is one that has no such thing (404) or has it in
    /// another state (409): that is about this event.
    pub(crate) fn is_failure(&self) -> Option<bool> {
        match self {
            Self::Answered(Ok(_) | Err(DispatchError::Permanent { .. })) | Self::NotTold(_) => Some(false),
            Self::Answered(Err(DispatchError::Transient { status: Some(404 | 409), .. })) => Some(false),
            Self::Answered(Err(DispatchError::Interrupted { .. }))
            | Self::NotAsked(_)
            | Self::Skipped(_)
            | Self::Waiting(..)
            | Self::Undeliverable(..) => None,
            _ => Some(true),
        }
    }

    /// Whether the destination was asked: only such attempts use up `attempts`.
    pub(crate) fn has_asked(&self) -> bool {
        !matches!(
            self,
            Self::Answered(Err(DispatchError::Interrupted { .. }))
                | Self::NotAsked(_)
                | Self::Skipped(_)
                | Self::Waiting(..)
                | Self::Undeliverable(..)
        )
    }

    /// Whether it holds though the process stops: anything else may come of being cut off
    /// by the stop, and is no attempt.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Answered(Ok(_) | Err(DispatchError::Permanent { .. }))
                | Self::NotTold(DispatchError::Permanent { .. })
                | Self::Skipped(_)
                | Self::Undeliverable(..)
        )
    }
}

/// What the decision rests on, beside what happened.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Attempts before this one in which the destination was asked.
    pub asked: u32,
    /// Time since the first attempt began.
    pub elapsed: Duration,
    /// The route's breaker leaves the destination alone, or this attempt asked whether it
    /// is back.
    pub is_breaker_open: bool,
    /// Chance, in 0.0..1.0.
    pub chance: f64,
}

impl Circumstances {
    /// The same, numbered by the attempts in which the destination was asked.
    fn of_asked(self) -> Self {
        Self { attempt: self.asked.saturating_add(1), ..self }
    }
}

/// Decides. Panics and timeouts are tried again like any passing failure.
#[must_use]
pub fn verdict(ended: &Ended, at: Circumstances, retry: &RetrySettings) -> Verdict {
    match ended {
        Ended::Answered(Ok(_)) | Ended::Skipped(_) => Verdict::Done,
        Ended::Undeliverable(reason, _) => Verdict::Dead(*reason),
        Ended::Answered(Err(DispatchError::Permanent { .. }))
        | Ended::NotAsked(DispatchError::Permanent { .. })
        | Ended::NotTold(DispatchError::Permanent { .. }) => Verdict::Dead(DeadReason::Permanent),
        // Nobody's failure: whoever it waits for is delivered, or gives way.
        Ended::Waiting(_, left) => Verdict::Again(wait_for_other(*left, at, retry)),
        // Not the destination's failure: only the time runs out.
        Ended::Answered(Err(DispatchError::Interrupted { .. })) if at.elapsed < retry.budget.0 => {
            again(at, retry, Duration::ZERO)
        }
        // Nor is this: Fluent may be slow to show what it tells.
        Ended::NotAsked(error) if at.elapsed < retry.budget.0 => again(at, retry, wait(error, at, retry)),
        // While nothing is asked of a destination, nothing is given up for its failures.
        _ if is_exhausted(at, retry) && !at.is_breaker_open => Verdict::Dead(DeadReason::Exhausted),
        // What did not come to the destination says nothing of how long to leave it alone.
        Ended::Answered(Err(error)) => again(at, retry, wait(error, at.of_asked(), retry)),
        _ => again(at, retry, backoff(at.of_asked(), retry)),
    }
}

/// An eighth of what it has waited for, so that it neither asks all the time nor long after the
/// other failed; and not past the end of the other's claim.
fn wait_for_other(left: Duration, at: Circumstances, retry: &RetrySettings) -> Duration {
    let shortest = retry.first.0.min(LONGEST_WAIT_FOR_OTHER);
    (at.elapsed / 8).clamp(shortest, LONGEST_WAIT_FOR_OTHER).min(left.max(SHORTEST_WAIT_FOR_OTHER))
}

fn is_exhausted(at: Circumstances, retry: &RetrySettings) -> bool {
    at.elapsed >= retry.budget.0 || retry.attempts.is_some_and(|attempts| at.asked + 1 >= attempts)
}

/// How long to wait for what failed like this.
fn wait(error: &DispatchError, at: Circumstances, retry: &RetrySettings) -> Duration {
    match error {
        DispatchError::Transient { retry_after: Some(asked), .. } => no_sooner_than(*asked, at, retry),
        _ => backoff(at, retry),
    }
}

/// As long as the destination asks for, or as long as without its advice if that is longer:
/// one that always says `1` must not be asked every second for days. A little longer, so
/// that what was told the same does not return together.
fn no_sooner_than(asked: Duration, at: Circumstances, retry: &RetrySettings) -> Duration {
    let backoff = backoff(at, retry);
    let wait = asked.min(MAX_RETRY_AFTER).max(backoff);
    wait.mul_f64(1.0 + MAX_RETRY_AFTER_JITTER * at.chance).min(MAX_RETRY_AFTER.max(backoff))
}

/// Waits, but not past the end of the budget: there is one last attempt at it. What is past
/// it waits in any case, so that it is not the first to be asked for each time.
fn again(at: Circumstances, retry: &RetrySettings, wait: Duration) -> Verdict {
    if at.elapsed >= retry.budget.0 {
        return Verdict::Again(wait.max(retry.first.0));
    }
    let left = retry.budget.0.saturating_sub(at.elapsed);
    Verdict::Again(wait.max(retry.first.0).min(left.max(retry.first.0)))
}

/// Between `first` and a bound that doubles with every attempt up to
/// `ceiling`: spread out, so that what failed together does not return together.
fn backoff(at: Circumstances, retry: &RetrySettings) -> Duration {
    let doubled = 2_u32.checked_pow(at.attempt.min(31)).unwrap_or(u32::MAX);
    let bound = retry.first.0.saturating_mul(doubled).min(retry.ceiling.0);
    retry.first.0 + bound.saturating_sub(retry.first.0).mul_f64(at.chance)
}

#[cfg(test)]
mod tests;
