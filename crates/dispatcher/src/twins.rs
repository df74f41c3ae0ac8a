//! One event, told twice: out of Fluent's log, since it had not come, and by the webhook
//! that came late after all. They have different bytes, and so different ids; a route
//! that takes both has the effect once. A webhook that a person sends again is meant.

use std::sync::Arc;

use dispatch::DispatchError;
use event_model::{Event, Origin};
use queue::EventQueue;
use queue::marks::{set_delivered, twin};
use settings::RouteSettings;
use telemetry::Chain;

use crate::policy::{Ended, Skip};

/// What a route knows of events that were told twice.
#[derive(Debug)]
pub(crate) struct Twins {
    queue: Arc<dyn EventQueue>,
    route: String,
}

impl Twins {
    /// Of a route that takes both; another never has two of one event.
    pub(crate) fn of(settings: &RouteSettings, queue: &Arc<dyn EventQueue>) -> Option<Self> {
        let takes_webhooks = settings.terms.origin.iter().any(|origin| origin == Origin::Webhook.as_str());
        let takes_both = takes_webhooks && settings.takes_reconciled();
        takes_both.then(|| Self { queue: Arc::clone(queue), route: settings.name.clone() })
    }

    /// Whether the event has another like it. Ends the attempt where the route has delivered
    /// that one.
    pub(crate) async fn look(&self, event: &Event) -> Result<bool, Ended> {
        match twin(self.queue.stores().marks(), event.fluent_key(), &self.route).await {
            Ok(None) => Ok(false),
            Ok(Some(twin)) if twin.is_over(event.id()) => Err(Ended::Skipped(Skip::Twin)),
            Ok(Some(_)) => Ok(true),
            Err(error) => {
                let action = "asking whether the event was reconciled";
                Err(Ended::NotAsked(DispatchError::transient(action, error)))
            }
        }
    }

    /// The destination has the event: it needs no other like it.
    pub(crate) async fn delivered(&self, event: &Event) {
        let marks = self.queue.stores().marks();
        if let Err(error) = set_delivered(marks, event.fluent_key(), &self.route, event.id()).await {
            tracing::warn!(event.id = %event.id(), route = self.route, error = %Chain(&error), "delivered, and not noted: another like it would be delivered too");
        }
    }
}
