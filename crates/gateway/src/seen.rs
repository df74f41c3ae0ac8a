//! The hours in which each kind of event came, for an operator who misses one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_model::{Clock, Event, SystemClock};
use process::Shutdown;
use queue::seen_events::{SeenEvents, set_seen};
use queue::{FactAccess, FactStore};
use telemetry::ErrorChain;
use tokio::time::{sleep, timeout};

/// Time between two writes. A crash loses no more than this, and a process that crashes in its
/// first minute writes nothing.
const WRITTEN_EVERY: Duration = Duration::from_mins(1);

/// Longest time for the final write, during which the port is shut.
const LAST_WITHIN: Duration = Duration::from_millis(200);

/// The events that this process has seen. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct SeenEventsRecorder(Arc<Mutex<SeenEvents>>);

impl SeenEventsRecorder {
    /// Notes that an event was accepted.
    pub(crate) fn note(&self, event: &Event) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.note(
            event.environment().as_str(),
            event.account(),
            event.name(),
            event.received_at(),
        );
    }

    /// Writes the hours down again and again, under an id of this process and the present time.
    pub(crate) fn keep(&self, process: &str, facts: Arc<dyn FactAccess>, shutdown: &Shutdown) {
        let id = format!("{process}.{}", SystemClock.now().as_second());
        let seen = self.clone();
        let closing = shutdown.closing();
        shutdown.spawn_intake(async move {
            closing
                .run_until_cancelled(seen.write(&id, facts.facts()))
                .await;
            // The last minute is written too: its events may be all that came in a night.
            let last = seen
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if last != SeenEvents::default() {
                let _ = timeout(LAST_WITHIN, set_seen(facts.facts(), &id, &last)).await;
            }
        });
    }

    async fn write(&self, id: &str, facts: &dyn FactStore) {
        let mut written = SeenEvents::default();
        loop {
            sleep(WRITTEN_EVERY).await;
            let now = self
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if now == written {
                continue;
            }
            match set_seen(facts, id, &now).await {
                Ok(()) => written = now,
                Err(error) => {
                    tracing::debug!(error = %ErrorChain(&error), "in which hours events came is not written down");
                }
            }
        }
    }
}
