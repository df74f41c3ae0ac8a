//! The outcome hooks `on-success` and `on-dead-letter`: dispatchers that are notified of what
//! became of an event.

use std::sync::Arc;
use std::time::Duration;

use dispatch::{AnyDispatcher, Context, DeliveryOutcome, DispatchError, Done};
use event_model::Event;
use tokio::time::{Instant, sleep, timeout};

/// Time for which notifying is tried within the attempt. After that the whole delivery comes
/// again, with the same idempotency key.
const WITHIN: Duration = Duration::from_mins(2);

/// First pause between two tries: it doubles, and the hook may ask for another.
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// The hooks of a route.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutcomeHooks {
    pub(crate) on_success: Option<AnyDispatcher>,
    pub(crate) on_dead_letter: Option<AnyDispatcher>,
}

impl OutcomeHooks {
    /// Closes both, when nothing is in flight.
    pub(crate) async fn close(&self) {
        for told in [&self.on_success, &self.on_dead_letter]
            .into_iter()
            .flatten()
        {
            told.close().await;
        }
    }
}

/// Adds to a text for the history.
pub(crate) fn joined(before: Option<&str>, words: &str) -> String {
    match before {
        Some(before) => format!("{before}; {words}"),
        None => words.to_owned(),
    }
}

/// Notifies a hook, and tries again for a while if that may help.
pub(crate) async fn notify(
    whom: &AnyDispatcher,
    event: &Event,
    cx: &Context,
    told: DeliveryOutcome,
) -> Result<Done, DispatchError> {
    let mut cx = cx.clone();
    // A key of its own, since this is another effect than the delivery, also at a destination
    // that gets both.
    let of = if told.reason.is_some() {
        "on-dead-letter"
    } else {
        "on-success"
    };
    cx.idempotency_key = format!("{}/{of}", cx.idempotency_key);
    (cx.outcome, cx.response, cx.timeout) = (Some(Arc::new(told)), None, whom.timeout());
    let began = Instant::now();
    let mut wait = AGAIN;
    loop {
        let answer = timeout(cx.timeout, whom.dispatch(event, &cx)).await;
        let error = match answer {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => error,
            Err(elapsed) => DispatchError::transient("telling of the outcome", elapsed),
        };
        if matches!(error, DispatchError::Permanent { .. }) || began.elapsed() + wait >= WITHIN {
            return Err(error);
        }
        let asked = error.retry_after().unwrap_or(wait);
        sleep(asked.clamp(AGAIN, LONGEST_WAIT)).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
