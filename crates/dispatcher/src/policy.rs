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
mod tests {
    use super::*;
    use settings::Time;

    const RETRY: RetrySettings = RetrySettings {
        first: Time(Duration::from_secs(1)),
        ceiling: Time(Duration::from_mins(1)),
        budget: Time(Duration::from_hours(1)),
        attempts: None,
    };

    fn transient(retry_after: Option<u64>) -> Ended {
        let retry_after = retry_after.map(Duration::from_secs);
        Ended::Answered(Err(DispatchError::Transient {
            action: "testing",
            retry_after,
            status: Some(503),
            source: "x".into(),
        }))
    }

    /// The destination was asked at every attempt.
    fn at(attempt: u32, elapsed: u64) -> Circumstances {
        let elapsed = Duration::from_secs(elapsed);
        Circumstances { attempt, asked: attempt - 1, elapsed, is_breaker_open: false, chance: 1.0 }
    }

    #[track_caller]
    fn check(ended: &Ended, attempt: u32, elapsed: u64, chance: f64, expected: Verdict) {
        let at = Circumstances { chance, ..at(attempt, elapsed) };
        assert_eq!(verdict(ended, at, &RETRY), expected);
    }

    fn after(seconds: u64) -> Verdict {
        Verdict::Again(Duration::from_secs(seconds))
    }

    #[test]
    fn what_the_dispatcher_says_is_final_is_final() {
        check(&Ended::Answered(Ok(Done::default())), 9, 99_999, 0.0, Verdict::Done);
        let permanent = Ended::Answered(Err(DispatchError::permanent("testing", "x")));
        check(&permanent, 1, 0, 0.0, Verdict::Dead(DeadReason::Permanent));
    }

    #[test]
    fn what_was_cut_off_comes_again_however_often_until_the_time_is_up() {
        let cut = Ended::Answered(Err(DispatchError::interrupted("testing", "x")));
        let once = RetrySettings { attempts: Some(1), ..RETRY };
        let at = |elapsed| at(7, elapsed);
        assert_eq!(verdict(&cut, at(5), &once), Verdict::Again(Duration::from_secs(1)));
        assert_eq!(verdict(&cut, at(3600), &once), Verdict::Dead(DeadReason::Exhausted));
    }

    #[test]
    fn what_fluent_does_not_show_yet_uses_up_time_and_no_attempts() {
        let once = RetrySettings { attempts: Some(1), ..RETRY };
        let at = |elapsed| at(3, elapsed);
        let missing = Ended::NotAsked(DispatchError::transient("testing", "x"));
        assert_eq!(missing.is_failure(), None, "it says nothing of the destination");
        assert_eq!(verdict(&missing, at(5), &once), after(8));
        assert_eq!(verdict(&missing, at(3600), &once), Verdict::Dead(DeadReason::Exhausted));
        let never = Ended::NotAsked(DispatchError::permanent("testing", "x"));
        assert_eq!(verdict(&never, at(5), &once), Verdict::Dead(DeadReason::Permanent));
        assert_eq!(verdict(&Ended::Skipped(Skip::Twin), at(5), &once), Verdict::Done);
    }

    #[test]
    fn who_waits_for_another_of_its_id_waits_shortly_and_is_never_given_up() {
        let once = RetrySettings { attempts: Some(1), ..RETRY };
        let id = EventId::of(event_model::Environment::Sandbox, b"{}");
        let waiting = |left| Ended::Waiting(id, Duration::from_secs(left));
        assert_eq!((waiting(9).is_failure(), waiting(9).has_asked()), (None, false));
        for (elapsed, left, expected) in [(0, 60, 1), (40, 60, 5), (40, 3, 3), (99_999, 60, 10)] {
            for attempt in [1, 40] {
                assert_eq!(verdict(&waiting(left), at(attempt, elapsed), &once), after(expected));
            }
        }
        let ended = Verdict::Again(SHORTEST_WAIT_FOR_OTHER);
        assert_eq!(verdict(&waiting(0), at(1, 0), &once), ended, "its claim has ended");
    }

    #[test]
    fn what_failed_before_the_destination_was_asked_makes_no_later_wait_longer() {
        let first = Circumstances { asked: 0, ..at(40, 5) };
        assert_eq!(verdict(&transient(None), first, &RETRY), after(2));
    }

    #[test]
    fn waits_double_up_to_the_ceiling_with_full_jitter() {
        for ended in [transient(None), Ended::TimedOut, Ended::Panicked] {
            check(&ended, 1, 0, 0.0, after(1));
            check(&ended, 1, 0, 1.0, after(2));
            check(&ended, 3, 0, 1.0, after(8));
            check(&ended, 3, 0, 0.0, after(1));
            check(&ended, 40, 0, 1.0, after(60));
        }
    }

    #[test]
    fn a_destination_is_left_alone_for_as_long_as_it_asks_and_a_little_longer() {
        check(&transient(Some(30)), 1, 0, 0.0, after(30));
        check(&transient(Some(30)), 1, 0, 1.0, after(33));
        // Not past the budget: one last attempt at its end.
        check(&transient(Some(999_999)), 1, 600, 0.5, after(3000));
    }

    #[test]
    fn a_destination_that_asks_for_little_gets_no_more_attempts_for_it() {
        check(&transient(Some(0)), 1, 0, 0.0, after(1));
        check(&transient(Some(1)), 6, 0, 0.0, after(1));
        let Verdict::Again(wait) = verdict(&transient(Some(1)), at(6, 0), &RETRY) else { panic!() };
        assert!(wait >= Duration::from_mins(1), "the waits double all the same: {wait:?}");
    }

    #[test]
    fn nobody_may_ask_for_more_than_a_day() {
        let three_days = RetrySettings { budget: Time(Duration::from_hours(72)), ..RETRY };
        for (asked, expected) in [(999_999, 24 * 3600), (23 * 3600, 24 * 3600), (3600, 3960)] {
            assert_eq!(verdict(&transient(Some(asked)), at(1, 0), &three_days), after(expected));
        }
    }

    #[test]
    fn time_and_attempts_run_out() {
        check(&transient(None), 5, 3600, 0.0, Verdict::Dead(DeadReason::Exhausted));
        let retry = RetrySettings { attempts: Some(3), ..RETRY };
        for ended in [transient(None), Ended::TimedOut, Ended::Panicked] {
            assert_eq!(verdict(&ended, Circumstances { chance: 0.0, ..at(2, 0) }, &retry), after(1));
            assert_eq!(verdict(&ended, at(3, 0), &retry), Verdict::Dead(DeadReason::Exhausted));
        }
    }

    #[test]
    fn only_attempts_that_asked_the_destination_are_counted() {
        let once = RetrySettings { attempts: Some(1), ..RETRY };
        // Deploys, crashes, a subscriber that went: nobody was asked.
        let first = Circumstances { asked: 0, ..at(40, 5) };
        for ended in [
            Ended::Answered(Err(DispatchError::interrupted("testing", "x"))),
            Ended::NotAsked(DispatchError::transient("testing", "x")),
        ] {
            assert!(!ended.has_asked() && matches!(verdict(&ended, first, &once), Verdict::Again(_)));
        }
        let twice = RetrySettings { attempts: Some(2), ..RETRY };
        assert!(matches!(verdict(&transient(None), first, &twice), Verdict::Again(_)));
        assert_eq!(verdict(&transient(None), first, &once), Verdict::Dead(DeadReason::Exhausted));
    }

    #[test]
    fn nothing_is_given_up_while_the_breaker_is_open() {
        let retry = RetrySettings { attempts: Some(3), ..RETRY };
        for ended in [
            transient(None),
            transient(Some(1)),
            Ended::TimedOut,
            Ended::Answered(Err(DispatchError::interrupted("testing", "x"))),
            Ended::NotAsked(DispatchError::transient("testing", "x")),
        ] {
            for at in [at(7, 5), at(9, 3600), at(9, 99_999)] {
                let open = Circumstances { is_breaker_open: true, ..at };
                assert!(matches!(verdict(&ended, open, &retry), Verdict::Again(_)), "{ended:?}");
            }
            assert_eq!(verdict(&ended, at(9, 3600), &retry), Verdict::Dead(DeadReason::Exhausted));
        }
        let open = Circumstances { is_breaker_open: true, ..at(9, 99_999) };
        assert_eq!(verdict(&transient(None), open, &retry), after(60), "others are asked for first");
        let permanent = Ended::Answered(Err(DispatchError::permanent("testing", "x")));
        assert_eq!(verdict(&permanent, open, &retry), Verdict::Dead(DeadReason::Permanent));
    }

    #[test]
    fn what_is_about_one_event_is_no_failure_of_the_destination() {
        let status = |status| {
            let (action, source) = ("testing", "x".into());
            Ended::Answered(Err(DispatchError::Transient {
                action,
                retry_after: None,
                status: Some(status),
                source,
            }))
        };
        for (code, failed) in [(404, false), (409, false), (401, true), (403, true), (429, true), (500, true)]
        {
            assert_eq!(status(code).is_failure(), Some(failed), "{code}");
        }
        assert_eq!((Ended::TimedOut.is_failure(), Ended::Panicked.is_failure()), (Some(true), Some(true)));
    }
}
