//! One event of Fluent's that came with two bodies, on a route that wants one of them: if the
//! destination has one, the other is skipped. While one is attempted the other waits, and is
//! attempted if that one fails.

use std::sync::Arc;
use std::time::Duration;

use dispatch::DispatchError;
use event_model::{Environment, Event, EventId, FluentKey, Timestamp};
use queue::same_id::{Claim, GrantedClaim};
use queue::{QueueError, Source};
use settings::{OnSameId, RouteSettings};
use telemetry::ErrorChain;

use crate::note_retry::NoteRetry;
use crate::policy::{AttemptResult, SkipReason};

/// Time by which a claim outlasts its attempt: until the delivery is noted, on a machine whose
/// clock is somewhat behind.
const CLAIM_MARGIN: Duration = Duration::from_mins(1);

const ASKING: &str = "asking whether another event of its Fluent id is delivered";

/// Checks events of one route that share an id.
#[derive(Debug)]
pub(crate) struct SameId {
    source: Arc<dyn Source>,
    route: String,
}

impl SameId {
    /// Makes the check for a route that wants one event of an id; `None` for any other.
    pub(crate) fn of(settings: &RouteSettings, source: &Arc<dyn Source>) -> Option<Self> {
        let skips = settings.same_id == OnSameId::Skip;
        skips.then(|| Self {
            source: Arc::clone(source),
            route: settings.name.clone(),
        })
    }

    /// Tries, with an event that can't exist, whether this route may read and claim: without
    /// these rights it would deliver nothing, and each of its events would only seem to wait.
    pub(crate) async fn try_out(&self, now: Timestamp) -> Result<(), QueueError> {
        let key = FluentKey::of(Environment::Sandbox, "", "", "");
        let id = EventId::of(Environment::Sandbox, b"");
        self.source.same_id_delivered(key, &self.route).await?;
        let until = now.saturating_add(CLAIM_MARGIN).unwrap_or(Timestamp::MAX);
        match self
            .source
            .claim_same_id(key, &self.route, id, (now, until))
            .await?
        {
            Claim::Granted(granted) => {
                self.source
                    .release_same_id(key, &self.route, id, granted)
                    .await
            }
            Claim::Delivered(_) | Claim::Attempted { .. } => Ok(()),
        }
    }

    /// Ends an attempt if the route has delivered another event of the same id.
    pub(crate) async fn look(&self, event: &Event) -> Result<(), AttemptResult> {
        match self
            .source
            .same_id_delivered(event.fluent_key(), &self.route)
            .await
        {
            Ok(Some(other)) if other != event.id() => Err(skipped(other)),
            Ok(_) => Ok(()),
            Err(error) => Err(not_asked(error)),
        }
    }

    /// Claims the id for an attempt that begins now, so that others wait. Ends the attempt if the
    /// route has delivered one of them, or is attempting one.
    pub(crate) async fn claim(
        &self,
        event: &Event,
        now: Timestamp,
        lasts: Duration,
    ) -> Result<GrantedClaim, AttemptResult> {
        let key = event.fluent_key();
        let id = event.id();
        let until = now
            .saturating_add(lasts + CLAIM_MARGIN)
            .unwrap_or(Timestamp::MAX);
        match self
            .source
            .claim_same_id(key, &self.route, id, (now, until))
            .await
        {
            Ok(Claim::Granted(granted)) => Ok(granted),
            Ok(Claim::Delivered(other)) => Err(skipped(other)),
            Ok(Claim::Attempted { other, until }) => {
                let left = Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO);
                Err(AttemptResult::Waiting(other, left))
            }
            Err(error) => Err(not_asked(error)),
        }
    }

    /// Releases the claim of an attempt that failed, so that the other need not wait longer. If
    /// that fails, the claim ends by itself.
    pub(crate) async fn failed(&self, event: &Event, granted: GrantedClaim) {
        let released =
            self.source
                .release_same_id(event.fluent_key(), &self.route, event.id(), granted);
        if let Err(error) = released.await {
            tracing::debug!(event.id = %event.id(), route = self.route, error = %ErrorChain(&error), "others of its Fluent id wait for a while longer");
        }
    }

    /// Notes that the destination has the event. The settlement waits for that, since without it
    /// another event of the same id would be delivered too.
    pub(crate) async fn delivered(&self, event: &Event, notes: &NoteRetry) {
        let note = || {
            self.source
                .note_same_id_delivered(event.fluent_key(), &self.route, event.id())
        };
        if let Err(error) = notes.write(note).await {
            tracing::error!(event.id = %event.id(), route = self.route, error = %ErrorChain(&error), "delivered, and not noted: another event of its Fluent id would be delivered too");
        }
    }
}

fn skipped(other: EventId) -> AttemptResult {
    AttemptResult::Skipped(SkipReason::SameId(other))
}

fn not_asked(error: QueueError) -> AttemptResult {
    AttemptResult::EnrichmentFailed(DispatchError::transient(ASKING, error))
}
