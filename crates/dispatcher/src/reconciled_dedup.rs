//! Duplicates of reconciled events: an event that was missing was admitted from Fluent's log, and
//! its webhook came late after all. The two have different bytes, and so different ids; a route
//! that takes both has the effect once. A webhook that a person sends again counts as wanted.

use std::sync::Arc;

use dispatch::DispatchError;
use event_model::{Event, Origin};
use queue::Source;
use settings::RouteSettings;
use telemetry::ErrorChain;

use crate::note_retry::NoteRetry;
use crate::policy::{AttemptResult, SkipReason};

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
    pub(crate) async fn note_delivered(&self, event: &Event, notes: &NoteRetry) {
        let note = || {
            self.source
                .note_delivered(event.fluent_key(), &self.route, event.id())
        };
        if let Err(error) = notes.write(note).await {
            tracing::error!(event.id = %event.id(), route = self.route, error = %ErrorChain(&error), "delivered, and not noted: another like it would be delivered too");
        }
    }
}
