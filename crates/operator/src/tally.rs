//! Long work: how far it is, while somebody listens.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::Stream;
use service::Shutdown;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use wire::v1;

use crate::audit::{Begun, Touched};

/// How often whoever waits is told.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// How long whoever waits may take to read the last word.
const LAST_WORD: Duration = Duration::from_secs(2);

/// What a method that takes long answers with.
pub(crate) type Tallies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Counts, and tells.
#[derive(Debug)]
pub(crate) struct Teller {
    pub(crate) tally: v1::Tally,
    /// Which it were.
    touched: Touched,
    /// The same, for the audit log, should the work be cut off.
    so_far: Arc<Mutex<(v1::Tally, Touched)>>,
    told: Instant,
    to: mpsc::Sender<Result<v1::Tally, Status>>,
}

/// Nobody listens any more.
#[derive(Debug)]
pub(crate) struct Gone;

/// Why work ended before its end.
#[derive(Debug)]
pub(crate) enum Ended {
    Gone,
    Failed(Status),
}

impl From<Gone> for Ended {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

impl From<queue::QueueError> for Ended {
    fn from(error: queue::QueueError) -> Self {
        Self::Failed(crate::failure::queue(&error))
    }
}

impl Teller {
    /// Counts one answer, about what has this number.
    pub(crate) fn count<E: std::fmt::Display>(&mut self, id: u64, answer: &Result<(), E>) {
        self.touched.note(id, answer.is_ok());
        match answer {
            Ok(()) => self.tally.done += 1,
            Err(error) => {
                self.tally.failed += 1;
                if self.tally.first_failure.is_empty() {
                    self.tally.first_failure = error.to_string();
                }
            }
        }
    }

    /// Tells how far it is, if it is time; an end where nobody listens.
    pub(crate) async fn tell(&mut self) -> Result<(), Gone> {
        *self.so_far.lock().unwrap_or_else(PoisonError::into_inner) =
            (self.tally.clone(), self.touched.clone());
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            self.to.send(Ok(self.tally.clone())).await.map_err(|_| Gone)?;
        }
        if self.to.is_closed() { Err(Gone) } else { Ok(()) }
    }
}

/// Runs `work` beside the answer, which is its tallies; `wrap` makes messages of them.
/// A caller that goes away ends it, and so does the end of the process.
pub(crate) fn run<T, F>(
    shutdown: &Shutdown,
    begun: Option<Begun>,
    wrap: fn(v1::Tally) -> T,
    work: impl FnOnce(Teller) -> F,
) -> Tallies<T>
where
    T: Send + 'static,
    F: Future<Output = (Teller, Result<(), Ended>)> + Send + 'static,
{
    let (to, tallies) = mpsc::channel(1);
    let last_words = to.clone();
    let so_far: Arc<Mutex<(v1::Tally, Touched)>> = Arc::default();
    let teller = Teller {
        tally: v1::Tally::default(),
        touched: Touched::default(),
        so_far: Arc::clone(&so_far),
        told: Instant::now(),
        to,
    };
    let work = work(teller);
    let draining = shutdown.draining();
    shutdown.spawn(async move {
        let Some((teller, result)) = draining.run_until_cancelled(work).await else {
            let (cut_off, touched) = so_far.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(begun) = begun {
                begun
                    .end_with(&touched, cut_off.done, cut_off.failed, "cut off, after at least so many")
                    .await;
            }
            let stops = Status::unavailable(format!("this server stops, after {} were done", cut_off.done));
            return last_word(&last_words, Err(stops)).await;
        };
        let (done, failed) = (teller.tally.done, teller.tally.failed);
        let (outcome, last) = match result {
            Ok(()) => ("done".to_owned(), Some(Ok(teller.tally.clone()))),
            Err(Ended::Gone) => ("the caller went away".to_owned(), None),
            Err(Ended::Failed(status)) => (status.message().to_owned(), Some(Err(status))),
        };
        if let Some(begun) = begun {
            begun.end_with(&teller.touched, done, failed, &outcome).await;
        }
        if let Some(last) = last {
            last_word(&last_words, last).await;
        }
    });
    Box::pin(ReceiverStream::new(tallies).map(move |tally| tally.map(wrap)))
}

/// Says how it ended. Who does not read does not keep the process from ending.
async fn last_word(to: &mpsc::Sender<Result<v1::Tally, Status>>, word: Result<v1::Tally, Status>) {
    let _ = timeout(LAST_WORD, to.send(word)).await;
}
