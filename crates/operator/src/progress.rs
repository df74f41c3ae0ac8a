//! Progress of long work, sent for as long as the caller listens.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::Stream;
use process::Shutdown;
use proto::v1;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::audit::{AffectedItems, OpenEntry};

/// Interval at which the caller gets a report.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Longest time for the caller to read the last message.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The answer of a method that takes long.
pub(crate) type ProgressStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Counts results, and sends the counts.
#[derive(Debug)]
pub(crate) struct ProgressReporter {
    pub(crate) counts: v1::BulkProgress,
    /// The ids of the results.
    touched: AffectedItems,
    /// The counts and the ids so far, for the audit log if the work is cut off.
    so_far: Arc<Mutex<(v1::BulkProgress, AffectedItems)>>,
    told: Instant,
    to: mpsc::Sender<Result<v1::BulkProgress, Status>>,
}

/// The caller does not listen any more.
#[derive(Debug)]
pub(crate) struct CallerGone;

/// The reason why work ended early.
#[derive(Debug)]
pub(crate) enum WorkError {
    Gone,
    Failed(Status),
}

impl From<CallerGone> for WorkError {
    fn from(CallerGone: CallerGone) -> Self {
        Self::Gone
    }
}

impl From<Status> for WorkError {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

impl From<queue::QueueError> for WorkError {
    fn from(error: queue::QueueError) -> Self {
        Self::Failed(crate::failure::queue(&error))
    }
}

impl ProgressReporter {
    /// Notes something that was done by its number, for the audit log; the caller counts it.
    pub(crate) fn note_done(&mut self, id: u64) {
        self.touched.note(id, true);
    }

    /// Counts the result for this id.
    pub(crate) fn count<E: std::fmt::Display>(&mut self, id: u64, answer: &Result<(), E>) {
        self.touched.note(id, answer.is_ok());
        match answer {
            Ok(()) => self.counts.succeeded += 1,
            Err(error) => {
                self.counts.failed += 1;
                if self.counts.first_error.is_empty() {
                    self.counts.first_error = error.to_string();
                }
            }
        }
    }

    /// Sends the counts if it is time.
    ///
    /// # Errors
    /// If the caller is gone.
    pub(crate) async fn report(&mut self) -> Result<(), CallerGone> {
        *self.so_far.lock().unwrap_or_else(PoisonError::into_inner) =
            (self.counts.clone(), self.touched.clone());
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            self.to
                .send(Ok(self.counts.clone()))
                .await
                .map_err(|_| CallerGone)?;
        }
        if self.to.is_closed() {
            Err(CallerGone)
        } else {
            Ok(())
        }
    }
}

/// Runs `work` beside the answer, which is a stream of its reports; `wrap` makes the method's
/// messages of them. The work ends early if the caller goes away or the process drains.
pub(crate) fn run<T, F>(
    shutdown: &Shutdown,
    begun: Option<OpenEntry>,
    wrap: fn(v1::BulkProgress) -> T,
    work: impl FnOnce(ProgressReporter) -> F,
) -> ProgressStream<T>
where
    T: Send + 'static,
    F: Future<Output = (ProgressReporter, Result<(), WorkError>)> + Send + 'static,
{
    let (to, reports) = mpsc::channel(1);
    let last_words = to.clone();
    let so_far: Arc<Mutex<(v1::BulkProgress, AffectedItems)>> = Arc::default();
    let progress = ProgressReporter {
        counts: v1::BulkProgress::default(),
        touched: AffectedItems::default(),
        so_far: Arc::clone(&so_far),
        told: Instant::now(),
        to,
    };
    let work = work(progress);
    let draining = shutdown.draining();
    shutdown.spawn(async move {
        let Some((progress, result)) = draining.run_until_cancelled(work).await else {
            let (cut_off, touched) = so_far
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if let Some(begun) = begun {
                begun
                    .end_with(
                        &touched,
                        cut_off.succeeded,
                        cut_off.failed,
                        "cut off, after at least so many",
                    )
                    .await;
            }
            let stops = Status::unavailable(format!(
                "this server stops, after {} were done",
                cut_off.succeeded
            ));
            return send_last(&last_words, Err(stops)).await;
        };
        let done = progress.counts.succeeded;
        let failed = progress.counts.failed;
        let (outcome, last) = match result {
            Ok(()) => ("done".to_owned(), Some(Ok(progress.counts.clone()))),
            Err(WorkError::Gone) => ("the caller went away".to_owned(), None),
            Err(WorkError::Failed(status)) => (status.message().to_owned(), Some(Err(status))),
        };
        if let Some(begun) = begun {
            begun
                .end_with(&progress.touched, done, failed, &outcome)
                .await;
        }
        if let Some(last) = last {
            send_last(&last_words, last).await;
        }
    });
    Box::pin(ReceiverStream::new(reports).map(move |counts| counts.map(wrap)))
}

/// Sends the last message. A caller that does not read can't keep the process from ending.
async fn send_last(
    to: &mpsc::Sender<Result<v1::BulkProgress, Status>>,
    word: Result<v1::BulkProgress, Status>,
) {
    let _ = timeout(LAST_WORD, to.send(word)).await;
}
