//! Remembers in which hours which kinds of events came, for whoever misses one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_model::{Clock, Event, SystemClock};
use queue::seen::{SeenEvents, set_seen};
use queue::{HasMarks, Marks};
use service::Shutdown;
use telemetry::Chain;
use tokio::time::{sleep, timeout};

/// How often it is written down: a crash forgets no more than that, and a crash loop
/// leaves nothing behind.
const WRITTEN_EVERY: Duration = Duration::from_mins(1);

/// How long the last word may take: the port is shut meanwhile.
const LAST_WITHIN: Duration = Duration::from_millis(200);

/// What this process has seen. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub struct SeenHere(Arc<Mutex<SeenEvents>>);

impl SeenHere {
    /// An event was accepted.
    pub(crate) fn note(&self, event: &Event) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.note(event.environment().as_str(), event.account(), event.name(), event.received_at());
    }

    /// Writes it down again and again, as what this process has seen since now.
    pub(crate) fn keep(&self, process: &str, marks: Arc<dyn HasMarks>, shutdown: &Shutdown) {
        let id = format!("{process}.{}", SystemClock.now().as_second());
        let (seen, closing) = (self.clone(), shutdown.closing());
        shutdown.spawn_intake(async move {
            closing.run_until_cancelled(seen.write(&id, marks.marks())).await;
            // What came in the last minute, too: it may be all of a night's.
            let last = seen.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if last != SeenEvents::default() {
                let _ = timeout(LAST_WITHIN, set_seen(marks.marks(), &id, &last)).await;
            }
        });
    }

    async fn write(&self, id: &str, marks: &dyn Marks) {
        let mut written = SeenEvents::default();
        loop {
            sleep(WRITTEN_EVERY).await;
            let now = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if now == written {
                continue;
            }
            match set_seen(marks, id, &now).await {
                Ok(()) => written = now,
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "in which hours events came is not written down");
                }
            }
        }
    }
}
