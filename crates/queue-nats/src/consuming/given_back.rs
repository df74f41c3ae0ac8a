//! Giving a delivery back: to the retries, or to the server if they can't be written.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use event_model::Event;
use fail::fail_point;
use queue::{BoxError, Outcome, QueueError};
use tokio::time::timeout;

use crate::attempts::NextState;
use crate::consuming::delivery_state::DeliveryState;
use crate::consuming::exclusive_marker::ExclusiveMarker;
use crate::consuming::inflight::{AttemptState, InFlightMarker};
use crate::consuming::lease::{ended, line};
use crate::shared::{Origin, Shared};

/// Longest time for which giving back is tried; after that the end of the lease does it.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);

/// Longest time within that for writing a delivery to the retries: the rest is for letting the
/// server send it to another process.
const REQUEUE_WITHIN: Duration = Duration::from_secs(2);

/// Acknowledgement that gives a message back to the server, for the next request.
pub(crate) const GIVE_BACK: &str = "-NAK";

/// A delivery that is given back by a process or a route that stops.
pub(crate) struct GivenBack {
    pub(crate) shared: Arc<Shared>,
    pub(crate) route: Arc<str>,
    pub(crate) origin: Origin,
    pub(crate) reply: Subject,
    pub(crate) event: Arc<Event>,
    pub(crate) past: DeliveryState,
    pub(crate) lease: Duration,
    /// State of the attempt that `past` counts; `None` if no caller had it.
    pub(crate) attempt: Option<AttemptState>,
    pub(crate) was_alone: bool,
}

impl GivenBack {
    pub(crate) async fn run(self) {
        if !matches!(
            timeout(GIVE_BACK_WITHIN, self.give_back()).await,
            Ok(Ok(()))
        ) {
            tracing::warn!(
                route = &*self.route,
                "a delivery was not given back: it comes by its lease"
            );
        }
    }

    async fn give_back(&self) -> Result<(), BoxError> {
        let requeue_within = REQUEUE_WITHIN.min(self.lease / 3);
        let requeued = timeout(requeue_within, self.requeue()).await;
        if !matches!(requeued, Ok(Ok(()))) {
            // Whoever gets it must find what became of the attempt, and not take it for a crash.
            let _ = self.shared.link.say(self.reply.clone(), "+WPI").await;
            self.reject().await?;
        }
        if self.attempt == Some(AttemptState::Returned) {
            let attempt = ended(&self.shared, Outcome::Returned);
            let line = line(
                &self.event,
                &self.route,
                &self.past,
                &attempt,
                NextState::Back,
            );
            self.shared.attempts.record(line, self.past.position).await;
        }
        Ok(())
    }

    /// Puts it into the stream of retries, due at once: nothing of it is in flight then.
    async fn requeue(&self) -> Result<(), QueueError> {
        let why = format!("back/{}", self.origin);
        let returned = self.attempt == Some(AttemptState::Returned);
        let next = if returned {
            self.past.without_last_attempt()
        } else {
            self.past
        };
        fail_point!("give-back.before");
        self.shared
            .requeue(&self.event, &next, &self.route, Some(self.origin), &why)
            .await?;
        fail_point!("give-back.after");
        self.shared.acknowledge(&self.reply).await?;
        fail_point!("give-back.acknowledged");
        Ok(())
    }

    /// Lets the server send it to another process, if it can't be written to the retries. First writes what became of the attempt, so that nobody takes it for a crash.
    async fn reject(&self) -> Result<(), BoxError> {
        if let Some(state) = self.attempt {
            let mark =
                InFlightMarker::new(&self.shared, self.origin, &self.event, &self.past, state);
            self.shared
                .inflight
                .write(&self.shared, &self.route, vec![(self.origin, mark)])
                .await;
        }
        if self.was_alone {
            let place = ExclusiveMarker {
                route: &self.route,
                origin: self.origin,
                event: self.event.id(),
            };
            place.mark(&self.shared, self.past.attempts, false).await?;
        }
        self.shared.link.say(self.reply.clone(), GIVE_BACK).await
    }
}
