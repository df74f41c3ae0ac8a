//! Explanations of how an attempt ended, for the history and for the log.

use std::error::Error;
use std::time::Duration;

use dispatch::{DispatchError, Done, Excerpt};
use event_model::Timestamp;
use queue::{Attempt, Outcome};
use telemetry::Chain;

use crate::policy::Ended;

pub(crate) fn record(ended: &Ended, started_at: Timestamp, took: Duration) -> Attempt {
    let (outcome, status) = match ended {
        Ended::Answered(Ok(Done { status, .. })) => (Outcome::Done, *status),
        Ended::Skipped(_) => (Outcome::Done, None),
        Ended::Waiting(..) => (Outcome::Returned, None),
        Ended::Undeliverable(..)
        | Ended::NotAsked(DispatchError::Permanent { .. })
        | Ended::NotTold(DispatchError::Permanent { .. }) => (Outcome::Permanent, None),
        Ended::NotAsked(_) | Ended::NotTold(_) => (Outcome::Transient, None),
        Ended::Answered(Err(error @ DispatchError::Permanent { .. })) => (Outcome::Permanent, error.status()),
        Ended::Answered(Err(error)) => (Outcome::Transient, error.status()),
        Ended::TimedOut => (Outcome::TimedOut, None),
        Ended::Panicked => (Outcome::Panicked, None),
    };
    Attempt { started_at, took, outcome, status, detail: explain(ended, Reader::History) }
}

/// Readers of an explanation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    Log,
    History,
}

pub(crate) fn explain(ended: &Ended, reader: Reader) -> Option<String> {
    match ended {
        // A handler outside may have written it, and it may contain anybody's data.
        Ended::Answered(Ok(done)) => done.remark.clone().filter(|_| reader == Reader::History),
        Ended::Skipped(why) => Some(why.to_string()),
        Ended::Waiting(other, _) => Some(format!("waits: event {other} of the same Fluent id is attempted")),
        Ended::Undeliverable(_, why) => Some(why.clone()),
        Ended::NotAsked(error) => Some(said(error, reader)),
        Ended::NotTold(error) => Some(format!("delivered, and nobody was told: {}", said(error, reader))),
        Ended::Answered(Err(error)) => Some(said(error, reader)),
        Ended::TimedOut => Some("no answer before the deadline".to_owned()),
        Ended::Panicked => Some("the dispatcher panicked".to_owned()),
    }
}

fn said(error: &DispatchError, reader: Reader) -> String {
    match reader {
        Reader::Log => without_excerpt(error),
        Reader::History => Chain(error).to_string(),
    }
}

/// Explains an error without the excerpt of the destination's answer, which may contain anybody's
/// data.
pub(crate) fn without_excerpt(error: &DispatchError) -> String {
    let whole = Chain(error).to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        if let Some(Excerpt(said)) = found.downcast_ref() {
            let before = whole.strip_suffix(said.as_str()).unwrap_or("the destination refused it");
            return before.trim_end_matches(": ").to_owned();
        }
        cause = found.source();
    }
    whole
}
