//! Duplicates of reconciled events: an event that was missing was admitted from Fluent's log, and
//! its webhook came late after all. The two have different bytes, and so different ids; a route
//! that takes both has the effect once. A webhook that a person sends again counts as wanted.

use std::sync::Arc;
use std::time::Duration;

use dispatch::DispatchError;
use event_model::{Event, Origin};
use queue::{QueueError, Source};
use settings::RouteSettings;
use telemetry::ErrorChain;
use tokio::time::{Instant, sleep};

use crate::policy::{AttemptResult, SkipReason};

/// First and longest pause before it is tried again to note what was delivered, and the longest
/// time altogether: the delivery takes a permit meanwhile.
const NOTE_AGAIN: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const NOTE_WITHIN: Duration = Duration::from_mins(10);

/// Checks the events of one route for such duplicates.
#[derive(Debug)]
pub(crate) struct ReconciledDedup {
    source: Arc<dyn Source>,
    route: String,
}

impl ReconciledDedup {
    /// Makes the check for a route that takes both origins; `None` for any other, which never
    /// gets two of one event.
    pub(crate) fn of(settings: &RouteSettings, source: &Arc<dyn Source>) -> Option<Self> {
        let takes_webhooks = settings
            .terms
            .origin
            .iter()
            .any(|origin| origin == Origin::Webhook.as_str());
        let takes_both = takes_webhooks && settings.takes_reconciled();
        takes_both.then(|| Self {
            source: Arc::clone(source),
            route: settings.name.clone(),
        })
    }

    /// Whether the event has another like it. Ends the attempt if the route has delivered that
    /// one.
    pub(crate) async fn check(&self, event: &Event) -> Result<bool, AttemptResult> {
        match self
            .source
            .reconciled_duplicate(event.fluent_key(), &self.route)
            .await
        {
            Ok(None) => Ok(false),
            Ok(Some(twin)) if twin.is_duplicate(event.id()) => {
                Err(AttemptResult::Skipped(SkipReason::ReconciledDuplicate))
            }
            Ok(Some(_)) => Ok(true),
            Err(error) => {
                let action = "asking whether the event was reconciled";
                Err(AttemptResult::EnrichmentFailed(DispatchError::transient(
                    action, error,
                )))
            }
        }
    }

    /// Notes that the destination has the event. The settlement waits for that, since without it
    /// the other event would have its effect too.
    pub(crate) async fn note_delivered(&self, event: &Event) {
        let note = || {
            self.source
                .note_delivered(event.fluent_key(), &self.route, event.id())
        };
        if let Err(error) = retry_note(note).await {
            tracing::error!(event.id = %event.id(), route = self.route, error = %ErrorChain(&error), "delivered, and not noted: another like it would be delivered too");
        }
    }
}

/// Tries again and again, while the caller holds the delivery.
pub(crate) async fn retry_note<F>(note: impl Fn() -> F) -> Result<(), QueueError>
where
    F: Future<Output = Result<(), QueueError>>,
{
    let began = Instant::now();
    let mut wait = NOTE_AGAIN;
    loop {
        match note().await {
            Err(error) if began.elapsed() + wait < NOTE_WITHIN => {
                tracing::warn!(error = %ErrorChain(&error), "delivered, and not noted yet: it is settled when it is");
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            noted => return noted,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_delivered_is_noted_when_there_is_room_again() {
        let began = Instant::now();
        let is_full = || began.elapsed() < Duration::from_mins(2);
        let full = || {
            ready(if is_full() {
                Err(QueueError::Full)
            } else {
                Ok(())
            })
        };
        assert!(retry_note(full).await.is_ok());
        assert!(began.elapsed() < Duration::from_mins(2) + LONGEST_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_not_held_for_ever() {
        let began = Instant::now();
        let tries = AtomicU32::new(0);
        let full = || {
            tries.fetch_add(1, Ordering::Relaxed);
            ready(Err(QueueError::Full))
        };
        assert!(retry_note(full).await.is_err());
        assert!(began.elapsed() <= NOTE_WITHIN && tries.load(Ordering::Relaxed) < 40);
    }
}
