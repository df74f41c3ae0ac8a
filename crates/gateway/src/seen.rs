//! Remembers in which hours which kinds of events came, also over a restart.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_model::Event;
use queue::EventQueue;
use queue::seen::{SeenEvents, seen_by, set_seen};
use service::Shutdown;
use telemetry::Chain;
use tokio::time::{sleep, timeout};

/// How often it is written down: a crash forgets no more than that.
const WRITTEN_EVERY: Duration = Duration::from_mins(1);

/// How long to wait for what was written down before, and to try again where it can't be read.
const READ_WITHIN: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(30);

/// What this process has seen. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub struct SeenHere(Arc<Mutex<SeenEvents>>);

impl SeenHere {
    /// An event was accepted.
    pub(crate) fn note(&self, event: &Event) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.note(event.environment().as_str(), event.account(), event.name(), event.received_at());
    }

    /// Writes it down again and again, under this id.
    pub(crate) fn keep(&self, id: String, queue: Arc<dyn EventQueue>, shutdown: &Shutdown) {
        let (seen, closing) = (self.clone(), shutdown.closing());
        shutdown.spawn_detached(async move {
            closing.run_until_cancelled(seen.keep_up(&id, &*queue)).await;
        });
    }

    async fn keep_up(&self, id: &str, queue: &dyn EventQueue) {
        // What was before must not be overwritten by what is not known yet.
        let before = loop {
            match timeout(READ_WITHIN, seen_by(queue.stores().marks(), id)).await {
                Ok(Ok(before)) => break before,
                _ => sleep(AGAIN).await,
            }
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).merge(before);
        let mut written = SeenEvents::default();
        loop {
            let now = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if now != written {
                match set_seen(queue.stores().marks(), id, &now).await {
                    Ok(()) => written = now,
                    Err(error) => {
                        tracing::debug!(error = %Chain(&error), "in which hours events came is not written down");
                    }
                }
            }
            sleep(WRITTEN_EVERY).await;
        }
    }
}
