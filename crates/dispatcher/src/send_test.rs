//! One event to a route's destination, as a test: no delivery, no history, no number of anybody.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use dispatch::{AnyDispatcher, Context, ResponseCapture};
use enrichment::Enriched;
use event_model::{Event, Timestamp};
use futures::FutureExt;
use queue::Attempt;
use tokio::time::timeout;

use crate::OpenedRoutes;
use crate::explain::record;
use crate::policy::{AttemptResult, SkipReason};

/// Result of a test.
#[derive(Clone, Debug)]
pub struct TestResult {
    /// How the attempt ended, as the history would have it.
    pub attempt: Attempt,
    /// The destination's answer, if it took the event and answered something.
    pub answer: Vec<u8>,
    /// Where it went, without secrets, if the dispatcher can say.
    pub target: Option<String>,
}

/// Sends `event` to the destination of `route`, and closes what was opened for it. Nobody is
/// notified of the outcome, nothing is tried again, and nothing is counted.
pub async fn send_test(
    route: &str,
    opened: OpenedRoutes,
    event: &Event,
    started_at: Timestamp,
) -> TestResult {
    let OpenedRoutes {
        dispatcher,
        enrichment,
        then,
    } = opened;
    let capture = ResponseCapture::default();
    let mut cx = context(route, &dispatcher, event, started_at);
    cx.response = Some(capture.clone());
    let began = Instant::now();
    let asked = match &enrichment {
        Some(enrichment) => enrichment.enrich(event, Duration::ZERO).await,
        None => Ok(Enriched::Deliver(None)),
    };
    let mut target = None;
    let ended = match asked {
        Ok(Enriched::Deliver(enriched)) => {
            cx.enriched = enriched;
            let preview = dispatcher.preview(event, &cx).ok().flatten();
            target = preview.map(|preview| preview.target);
            dispatch(&dispatcher, event, &cx).await
        }
        Ok(Enriched::Skip) => AttemptResult::Skipped(SkipReason::MovedOn),
        Err(error) => AttemptResult::EnrichmentFailed(error),
    };
    let attempt = record(&ended, started_at, began.elapsed());
    dispatcher.close().await;
    then.close().await;
    TestResult {
        attempt,
        answer: capture.take(),
        target,
    }
}

/// The context of a first attempt, without a trace.
pub fn context(
    route: &str,
    dispatcher: &AnyDispatcher,
    event: &Event,
    started_at: Timestamp,
) -> Context {
    let mut cx = Context::new(route, event.id().to_string(), dispatcher.timeout());
    cx.started_at = started_at;
    cx
}

async fn dispatch(dispatcher: &AnyDispatcher, event: &Event, cx: &Context) -> AttemptResult {
    let attempt = AssertUnwindSafe(dispatcher.dispatch(event, cx)).catch_unwind();
    match timeout(cx.timeout, attempt).await {
        Ok(Ok(answer)) => AttemptResult::Answered(answer),
        Ok(Err(_)) => AttemptResult::Panicked,
        Err(_) => AttemptResult::TimedOut,
    }
}
