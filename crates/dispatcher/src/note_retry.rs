//! Writing what was delivered until it is stored: without that note, another event that stands for
//! the same would have its effect too.

use std::time::Duration;

use dispatch::CancellationToken;
use queue::QueueError;
use telemetry::ErrorChain;
use tokio::sync::watch;
use tokio::time::sleep;

/// First and longest pause before a note is written again.
const NOTE_AGAIN: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Writes the notes of one route. While one waits for room, the route takes no more: it could not
/// note that either.
#[derive(Debug)]
pub(crate) struct NoteRetry {
    /// Number of notes that wait.
    waiting: watch::Sender<usize>,
    hard_stop: CancellationToken,
}

impl NoteRetry {
    pub(crate) fn new(hard_stop: CancellationToken) -> Self {
        Self {
            waiting: watch::Sender::new(0),
            hard_stop,
        }
    }

    /// Tries again and again, while the caller holds the delivery. Fails when the process has to
    /// stop: then the delivery is settled without its note.
    pub(crate) async fn write<F>(&self, note: impl Fn() -> F) -> Result<(), QueueError>
    where
        F: Future<Output = Result<(), QueueError>>,
    {
        let mut wait = NOTE_AGAIN;
        let mut waiting = None;
        loop {
            let stopped = || QueueError::unavailable("noting a delivery", "the process stops");
            let noted = self.hard_stop.run_until_cancelled(note()).await;
            match noted.unwrap_or_else(|| Err(stopped())) {
                Err(error) if may_pass(&error) && !self.hard_stop.is_cancelled() => {
                    waiting.get_or_insert_with(|| self.begin());
                    tracing::warn!(error = %ErrorChain(&error), "delivered, and not noted yet: it is settled when it is, and its route takes no more before");
                    let _ = self.hard_stop.run_until_cancelled(sleep(wait)).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                noted => return noted,
            }
        }
    }

    /// Waits until no note waits. Cancel-safe.
    pub(crate) async fn written(&self) {
        // The sender is here.
        let _ = self
            .waiting
            .subscribe()
            .wait_for(|waiting| *waiting == 0)
            .await;
    }

    /// Waits until a note has to wait. Cancel-safe.
    pub(crate) async fn blocked(&self) {
        let _ = self
            .waiting
            .subscribe()
            .wait_for(|waiting| *waiting > 0)
            .await;
    }

    fn begin(&self) -> WaitingNote<'_> {
        self.waiting.send_modify(|waiting| *waiting += 1);
        WaitingNote(self)
    }
}

/// A note that waits, until it is dropped.
struct WaitingNote<'n>(&'n NoteRetry);

impl Drop for WaitingNote<'_> {
    fn drop(&mut self) {
        self.0.waiting.send_modify(|waiting| *waiting -= 1);
    }
}

/// Whether a note may be written later that can't be written now.
fn may_pass(error: &QueueError) -> bool {
    !matches!(error, QueueError::Closed | QueueError::Failed(_))
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use tokio::time::{Instant, timeout};

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[tokio::test(start_paused = true)]
    async fn what_was_delivered_is_noted_when_there_is_room_again_however_late() {
        let began = Instant::now();
        let notes = NoteRetry::new(CancellationToken::new());
        let full = || {
            ready(if began.elapsed() < HOUR {
                Err(QueueError::Full)
            } else {
                Ok(())
            })
        };
        let blocked = async {
            notes.blocked().await;
            notes.written().await;
            began.elapsed()
        };
        let (noted, blocked_for) = tokio::join!(notes.write(full), blocked);
        assert!(noted.is_ok());
        assert!(began.elapsed() < HOUR + LONGEST_WAIT);
        assert!(blocked_for >= HOUR, "the route takes no more before");
    }

    #[tokio::test(start_paused = true)]
    async fn a_note_that_waits_ends_with_the_process() {
        let hard_stop = CancellationToken::new();
        let notes = NoteRetry::new(hard_stop.clone());
        let mut writing = std::pin::pin!(notes.write(|| ready(Err(QueueError::Full))));
        assert!(timeout(HOUR, writing.as_mut()).await.is_err());
        hard_stop.cancel();
        let began = Instant::now();
        assert!(writing.await.is_err());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
