//! Explanations of how an attempt ended, for the history and for the log.

use std::error::Error;
use std::time::Duration;

use dispatch::{DispatchError, Done, Excerpt};
use event_model::Timestamp;
use queue::{Attempt, Outcome};
use telemetry::ErrorChain;

use crate::policy::AttemptResult;

pub(crate) fn record(ended: &AttemptResult, started_at: Timestamp, took: Duration) -> Attempt {
    let (outcome, status) = match ended {
        AttemptResult::Answered(Ok(Done { status, .. })) => (Outcome::Done, *status),
        AttemptResult::Skipped(_) => (Outcome::Done, None),
        AttemptResult::Waiting(..) => (Outcome::Returned, None),
        AttemptResult::Undeliverable(..)
        | AttemptResult::EnrichmentFailed(DispatchError::Permanent { .. })
        | AttemptResult::NotificationFailed(DispatchError::Permanent { .. }) => {
            (Outcome::Permanent, None)
        }
        AttemptResult::EnrichmentFailed(_) | AttemptResult::NotificationFailed(_) => {
            (Outcome::Transient, None)
        }
        AttemptResult::Answered(Err(error @ DispatchError::Permanent { .. })) => {
            (Outcome::Permanent, error.status())
        }
        AttemptResult::Answered(Err(error)) => (Outcome::Transient, error.status()),
        AttemptResult::TimedOut => (Outcome::TimedOut, None),
        AttemptResult::Panicked => (Outcome::Panicked, None),
    };
    Attempt {
        started_at,
        took,
        outcome,
        status,
        detail: explain(ended, Reader::History),
    }
}

/// Readers of an explanation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    Log,
    History,
}

pub(crate) fn explain(ended: &AttemptResult, reader: Reader) -> Option<String> {
    match ended {
        // A handler outside may have written it, and it may contain anybody's data.
        AttemptResult::Answered(Ok(done)) => {
            done.remark.clone().filter(|_| reader == Reader::History)
        }
        AttemptResult::Skipped(why) => Some(why.to_string()),
        AttemptResult::Waiting(other, _) => Some(format!(
            "waits: event {other} of the same Fluent id is attempted"
        )),
        AttemptResult::Undeliverable(_, why) => Some(why.clone()),
        AttemptResult::EnrichmentFailed(error) => Some(said(error, reader)),
        AttemptResult::NotificationFailed(error) => Some(format!(
            "delivered, and nobody was told: {}",
            said(error, reader)
        )),
        AttemptResult::Answered(Err(error)) => Some(said(error, reader)),
        AttemptResult::TimedOut => Some("no answer before the deadline".to_owned()),
        AttemptResult::Panicked => Some("the dispatcher panicked".to_owned()),
    }
}

fn said(error: &DispatchError, reader: Reader) -> String {
    match reader {
        Reader::Log => without_excerpt(error),
        Reader::History => ErrorChain(error).to_string(),
    }
}

/// Explains an error without the excerpt of the destination's answer, which may contain anybody's
/// data.
pub(crate) fn without_excerpt(error: &DispatchError) -> String {
    let whole = ErrorChain(error).to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        if let Some(Excerpt(said)) = found.downcast_ref() {
            let before = whole
                .strip_suffix(said.as_str())
                .unwrap_or("the destination refused it");
            return before.trim_end_matches(": ").to_owned();
        }
        cause = found.source();
    }
    whole
}
