//! The report of an attempt: decided once, and then traced, logged, counted and settled as it is.

use std::time::Duration;

use event_model::{EventId, Timestamp};
use queue::{Attempt, Disposition, Settlement};
use settings::RetrySettings;

use crate::explain::{Reader, explain, record};
use crate::notify::joined;
use crate::policy::{AttemptResult, RetryInput, SkipReason, disposition};

/// Result of an attempt, and what becomes of its delivery.
#[derive(Debug)]
pub(crate) struct AttemptReport {
    result: AttemptResult,
    settlement: Settlement,
}

impl AttemptReport {
    /// Decides by nothing but its arguments.
    pub(crate) fn decide(
        result: AttemptResult,
        at: RetryInput,
        retry: &RetrySettings,
        started_at: Timestamp,
        took: Duration,
    ) -> Self {
        let disposition = disposition(&result, at, retry);
        let asked = result.has_asked();
        let attempt = record(&result, started_at, took);
        Self {
            result,
            settlement: Settlement {
                disposition,
                asked,
                attempt,
            },
        }
    }

    pub(crate) fn disposition(&self) -> Disposition {
        self.settlement.disposition
    }

    /// Returns the record for the history.
    pub(crate) fn attempt(&self) -> &Attempt {
        &self.settlement.attempt
    }

    /// Adds to its words in the history.
    pub(crate) fn remark(&mut self, words: &str) {
        let detail = &mut self.settlement.attempt.detail;
        *detail = Some(joined(detail.as_deref(), words));
    }

    /// Whether it holds though the process stops.
    pub(crate) fn is_final(&self) -> bool {
        self.result.is_final()
    }

    /// Returns the settlement for the queue.
    pub(crate) fn into_settlement(self) -> Settlement {
        self.settlement
    }

    /// Returns the reason for which no attempt was needed, if none was.
    pub(crate) fn skipped(&self) -> Option<SkipReason> {
        match self.result {
            AttemptResult::Skipped(why) => Some(why),
            _ => None,
        }
    }

    /// Whether it only waits for another event, and nothing went wrong.
    pub(crate) fn is_waiting(&self) -> bool {
        matches!(self.result, AttemptResult::Waiting(..))
    }

    /// Writes it to the log, without anything that a destination or a handler said.
    pub(crate) fn log(
        &self,
        id: EventId,
        route: &str,
        attempt: u32,
        trace_id: impl Fn() -> String,
    ) {
        let error = explain(&self.result, Reader::Log).unwrap_or_default();
        let duration_ms = self.attempt().took.as_millis();
        match (self.disposition(), &self.result) {
            (Disposition::Done, AttemptResult::Skipped(why)) => {
                tracing::info!(event.id = %id, route, attempt, trace_id = trace_id(), "{why}");
            }
            (Disposition::Done, _) => {
                tracing::debug!(event.id = %id, route, attempt, duration_ms, trace_id = trace_id(), "delivered");
            }
            (Disposition::Again(wait), AttemptResult::Waiting(..)) => {
                tracing::debug!(event.id = %id, route, attempt, retry_after_ms = wait.as_millis(), "{error}");
            }
            (Disposition::Again(wait), _) => {
                tracing::warn!(event.id = %id, route, attempt, duration_ms, trace_id = trace_id(), error, retry_after_ms = wait.as_millis(), "not delivered");
            }
            (Disposition::Dead(reason), _) => {
                tracing::error!(event.id = %id, route, attempt, duration_ms, trace_id = trace_id(), error, %reason, "given up: a dead letter now");
            }
        }
    }
}
