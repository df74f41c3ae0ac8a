//! The retry policy: decides what becomes of a delivery after an attempt, as a pure function of
//! what happened, how often, since when, and the route's settings.

use std::fmt;
use std::time::Duration;

use dispatch::{DispatchError, Done};
use event_model::EventId;
use queue::{DeadReason, Disposition};
use settings::RetrySettings;

/// Longest wait that a destination may ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// Largest addition to the wait that a destination asks for, as a share of it.
const MAX_RETRY_AFTER_JITTER: f64 = 0.1;

/// Longest and shortest time that an event waits for another of its id before it checks again.
const LONGEST_WAIT_FOR_OTHER: Duration = Duration::from_secs(10);
const SHORTEST_WAIT_FOR_OTHER: Duration = Duration::from_millis(100);

/// Interruptions that make no wait longer: deploys, and crashes that another event caused. An
/// event that crashes each handler must not do so all the time, with all else that it has.
const QUICK_INTERRUPTIONS: u32 = 3;

/// Result of an attempt.
#[derive(Debug)]
pub enum AttemptResult {
    /// The dispatcher answered.
    Answered(Result<Done, DispatchError>),
    /// The dispatcher was not called: the enrichment that the route wants failed.
    EnrichmentFailed(DispatchError),
    /// The dispatcher delivered the event, but notifying the outcome hook failed.
    NotificationFailed(DispatchError),
    /// The dispatcher was not called, and need not be.
    Skipped(SkipReason),
    /// The dispatcher was not called yet: another event of the same id is being attempted, for at
    /// most this time.
    Waiting(EventId, Duration),
    /// The dispatcher was not called, and will not be: a person has to look, for this reason,
    /// explained in words.
    Undeliverable(DeadReason, String),
    /// The dispatcher did not answer before its deadline.
    TimedOut,
    /// The dispatcher panicked.
    Panicked,
}

/// Reasons for which a destination need not have an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// The event's entity has moved on, and the route wants no such event.
    MovedOn,
    /// The destination has another event that says the same: one was reconciled, and the other
    /// came late.
    ReconciledDuplicate,
    /// The route's expression failed when the event came, and refuses it now that it is repaired.
    NotMatched,
    /// The destination has this event of the same Fluent id and name, and the route wants one of
    /// them.
    SameId(EventId),
}

impl SkipReason {
    /// Returns a short code for metrics.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::MovedOn => "moved-on",
            Self::ReconciledDuplicate => "reconciled",
            Self::NotMatched => "not-matched",
            Self::SameId(_) => "same-id",
        }
    }
}

/// Describes the reason in words.
impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MovedOn => f.write_str("skipped: its entity has moved on"),
            Self::NotMatched => f.write_str("skipped: the route's match says no now"),
            Self::ReconciledDuplicate => {
                f.write_str("skipped: delivered before, as what was reconciled or came late")
            }
            Self::SameId(other) => {
                write!(
                    f,
                    "skipped: event {other} of the same Fluent id and name is delivered"
                )
            }
        }
    }
}

impl AttemptResult {
    /// Whether the destination failed; `None` if that is not known. A destination that will never
    /// take an event is well, and so is one that has no such thing (404) or has it in another
    /// state (409): that is about this event.
    pub(crate) fn is_failure(&self) -> Option<bool> {
        match self {
            Self::Answered(Ok(_) | Err(DispatchError::Permanent { .. }))
            | Self::NotificationFailed(_) => Some(false),
            Self::Answered(Err(DispatchError::Transient {
                status: Some(404 | 409),
                ..
            })) => Some(false),
            Self::Answered(Err(
                DispatchError::Interrupted { .. } | DispatchError::NotAsked { .. },
            ))
            | Self::EnrichmentFailed(_)
            | Self::Skipped(_)
            | Self::Waiting(..)
            | Self::Undeliverable(..) => None,
            _ => Some(true),
        }
    }

    /// Whether the destination was called: only such attempts use up `attempts`.
    pub(crate) fn has_asked(&self) -> bool {
        !matches!(
            self,
            Self::Answered(Err(
                DispatchError::Interrupted { .. } | DispatchError::NotAsked { .. }
            )) | Self::EnrichmentFailed(_)
                | Self::Skipped(_)
                | Self::Waiting(..)
                | Self::Undeliverable(..)
        )
    }

    /// Whether it holds though the process stops: any other result may come of being cut off by
    /// the stop, and does not count as an attempt.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Answered(Ok(_) | Err(DispatchError::Permanent { .. }))
                | Self::NotificationFailed(DispatchError::Permanent { .. })
                | Self::Skipped(_)
                | Self::Undeliverable(..)
        )
    }
}

/// Input of the decision, beside the result of the attempt.
#[derive(Clone, Copy, Debug)]
pub struct RetryInput {
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Attempts before this one in which the destination was called.
    pub asked: u32,
    /// Time since the first attempt began.
    pub elapsed: Duration,
    /// Whether the route's breaker is open, or this attempt is its probe.
    pub is_breaker_open: bool,
    /// Random number in 0.0..1.0.
    pub chance: f64,
}

impl RetryInput {
    /// Returns the same input with the attempts numbered by those that called the destination.
    fn of_asked(self) -> Self {
        Self {
            attempt: self.asked.saturating_add(1),
            ..self
        }
    }

    /// Returns the same input with the attempts numbered by those that did not call the
    /// destination, or were cut off, without the first of them.
    fn of_interrupted(self) -> Self {
        let interrupted = self.attempt.saturating_sub(self.asked);
        Self {
            attempt: interrupted.saturating_sub(QUICK_INTERRUPTIONS),
            ..self
        }
    }
}

/// Decides what becomes of the delivery. Panics and timeouts are retried like any passing
/// failure.
#[must_use]
pub fn disposition(ended: &AttemptResult, at: RetryInput, retry: &RetrySettings) -> Disposition {
    match ended {
        AttemptResult::Answered(Ok(_)) | AttemptResult::Skipped(_) => Disposition::Done,
        AttemptResult::Undeliverable(reason, _) => Disposition::Dead(*reason),
        AttemptResult::Answered(Err(DispatchError::Permanent { .. }))
        | AttemptResult::EnrichmentFailed(DispatchError::Permanent { .. })
        | AttemptResult::NotificationFailed(DispatchError::Permanent { .. }) => {
            Disposition::Dead(DeadReason::Permanent)
        }
        // No failure: the event that it waits for is delivered, or gives way.
        AttemptResult::Waiting(_, left) => Disposition::Again(wait_for_other(*left, at, retry)),
        // Not the destination's failure, so that it is given up only for time.
        AttemptResult::Answered(Err(DispatchError::Interrupted { .. }))
            if at.elapsed < retry.max_elapsed =>
        {
            again(at, retry, backoff(at.of_interrupted(), retry))
        }
        // Not the destination's failure either: Fluent may be slow to show an entity that it has
        // told of, or a dispatcher may lack what it needs to begin.
        AttemptResult::EnrichmentFailed(error)
        | AttemptResult::Answered(Err(error @ DispatchError::NotAsked { .. }))
            if at.elapsed < retry.max_elapsed =>
        {
            again(at, retry, wait(error, at, retry))
        }
        // While the breaker is open, no delivery is given up for its destination's failures.
        _ if is_exhausted(at, retry) && !at.is_breaker_open => {
            Disposition::Dead(DeadReason::Exhausted)
        }
        // An attempt that did not reach the destination says nothing of how long to wait for it.
        AttemptResult::Answered(Err(error)) => again(at, retry, wait(error, at.of_asked(), retry)),
        _ => again(at, retry, backoff(at.of_asked(), retry)),
    }
}

/// Returns an eighth of the time that the event has waited, so that it neither checks all the
/// time nor long after the other failed; and not past the end of the other's claim.
fn wait_for_other(left: Duration, at: RetryInput, retry: &RetrySettings) -> Duration {
    let shortest = retry.initial.min(LONGEST_WAIT_FOR_OTHER);
    (at.elapsed / 8)
        .clamp(shortest, LONGEST_WAIT_FOR_OTHER)
        .min(left.max(SHORTEST_WAIT_FOR_OTHER))
}

fn is_exhausted(at: RetryInput, retry: &RetrySettings) -> bool {
    at.elapsed >= retry.max_elapsed
        || retry
            .attempts
            .is_some_and(|attempts| at.asked + 1 >= attempts)
}

/// Returns how long to wait after this failure.
fn wait(error: &DispatchError, at: RetryInput, retry: &RetrySettings) -> Duration {
    match error.retry_after() {
        Some(asked) => no_sooner_than(asked, at, retry),
        None => backoff(at, retry),
    }
}

/// Returns the wait that the destination asks for, or the usual one if that is longer: a
/// destination that always says `1` must not be called every second for days. Slightly longer, so
/// that deliveries with the same answer do not return together.
fn no_sooner_than(asked: Duration, at: RetryInput, retry: &RetrySettings) -> Duration {
    let backoff = backoff(at, retry);
    let wait = asked.min(MAX_RETRY_AFTER).max(backoff);
    wait.mul_f64(1.0 + MAX_RETRY_AFTER_JITTER * at.chance)
        .min(MAX_RETRY_AFTER.max(backoff))
}

/// Retries after a wait that does not pass the end of the budget, at which there is one last
/// attempt. Past the end it waits in any case, so that the delivery is not fetched first each
/// time.
fn again(at: RetryInput, retry: &RetrySettings, wait: Duration) -> Disposition {
    if at.elapsed >= retry.max_elapsed {
        return Disposition::Again(wait.max(retry.initial));
    }
    let left = retry.max_elapsed.saturating_sub(at.elapsed);
    Disposition::Again(wait.max(retry.initial).min(left.max(retry.initial)))
}

/// Returns a random wait between `initial` and a bound that doubles with every attempt up to
/// `max-delay`, so that deliveries that failed together do not return together.
fn backoff(at: RetryInput, retry: &RetrySettings) -> Duration {
    let doubled = 2_u32.checked_pow(at.attempt.min(31)).unwrap_or(u32::MAX);
    let bound = retry.initial.saturating_mul(doubled).min(retry.max_delay);
    retry.initial + bound.saturating_sub(retry.initial).mul_f64(at.chance)
}

#[cfg(test)]
mod tests;
