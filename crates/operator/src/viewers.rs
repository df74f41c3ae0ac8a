//! Viewers of a stream: at most so many at once, each for as long as it reads.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Most viewers at once: people, and what they have open.
const VIEWERS: usize = 64;

/// Longest time for a viewer to read a message.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// The stream that a viewer gets.
pub(crate) type View<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Permits for viewers.
#[derive(Clone, Debug)]
pub(crate) struct Viewers(Arc<Semaphore>);

impl Default for Viewers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(VIEWERS)))
    }
}

impl Viewers {
    /// Takes a permit for one more viewer.
    pub(crate) fn enter<T: Send + 'static>(&self) -> Result<(Viewer<T>, View<T>), Status> {
        let place = Arc::clone(&self.0).try_acquire_owned();
        let full =
            |_| Status::resource_exhausted(format!("{VIEWERS} watch already: end one of these"));
        let place = place.map_err(full)?;
        let (to, told) = mpsc::channel::<Slot<T>>(1);
        let view = ReceiverStream::new(told)
            .map(|slot| take(&slot).unwrap_or_else(|| Err(does_not_read())));
        let why = Slot::default();
        let end = Arc::clone(&why);
        let end = futures::stream::once(async move { take(&end) }).filter_map(|why| why);
        Ok((
            Viewer {
                to,
                why,
                _place: place,
            },
            Box::pin(view.chain(end)),
        ))
    }
}

/// A message on its way. A message that is not read is taken back through this, since a
/// connection that does not read can't be made to drop it.
type Slot<T> = Arc<Mutex<Option<Result<T, Status>>>>;

fn take<T>(slot: &Slot<T>) -> Option<Result<T, Status>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// The viewer does not read any more.
#[derive(Debug)]
pub(crate) struct ViewerGone;

/// A viewer, with its permit.
#[derive(Debug)]
pub(crate) struct Viewer<T> {
    to: mpsc::Sender<Slot<T>>,
    /// The reason for the end of the stream, sent after all other messages.
    why: Slot<T>,
    _place: OwnedSemaphorePermit,
}

impl<T> Viewer<T> {
    /// True if the viewer has gone away.
    pub(crate) fn has_left(&self) -> bool {
        self.to.is_closed()
    }

    /// Sends a message, and waits a bounded time until it is read.
    pub(crate) async fn tell(&self, message: T) -> Result<(), ViewerGone> {
        let slot = Arc::new(Mutex::new(Some(Ok(message))));
        let telling = async {
            self.to
                .send(Arc::clone(&slot))
                .await
                .map_err(|_| ViewerGone)?;
            // There is room again once it is read.
            self.to.reserve().await.map(drop).map_err(|_| ViewerGone)
        };
        match timeout(READ_WITHIN, telling).await {
            Ok(told) => told,
            Err(_) => {
                take(&slot);
                Err(ViewerGone)
            }
        }
    }

    /// Ends the stream with this reason.
    pub(crate) fn end(self, why: Status) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(Err(why));
    }
}

fn does_not_read() -> Status {
    Status::resource_exhausted(format!("nothing was read for {} s", READ_WITHIN.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_read_keeps_neither_a_place_nor_a_message() {
        let viewers = Viewers::default();
        let mut all: Vec<_> = (0..VIEWERS)
            .map(|_| viewers.enter::<Arc<()>>().unwrap())
            .collect();
        assert!(viewers.enter::<Arc<()>>().is_err(), "there is no place");
        let (viewer, mut view) = all.pop().unwrap();
        let message = Arc::new(());
        assert!(viewer.tell(Arc::clone(&message)).await.is_err());
        assert_eq!(Arc::strong_count(&message), 1, "nobody holds it");
        drop(viewer);
        assert!(viewers.enter::<Arc<()>>().is_ok(), "its place is another's");
        let said = view.next().await.unwrap().unwrap_err();
        assert!(said.message().contains("nothing was read"), "{said}");
        assert!(view.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_reads_late_is_told_why_it_ends() {
        let (viewer, view) = Viewers::default().enter::<u32>().unwrap();
        // The message is not read yet when the server stops.
        assert!(
            timeout(Duration::from_secs(1), viewer.tell(1))
                .await
                .is_err()
        );
        viewer.end(Status::unavailable("this server stops"));
        let told: Vec<_> = view.collect().await;
        assert_eq!(told.len(), 2);
        assert_eq!(*told[0].as_ref().unwrap(), 1);
        assert!(told[1].is_err(), "what came later was left out");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_reads_is_told_everything_and_why_it_ends() {
        let (viewer, view) = Viewers::default().enter::<u32>().unwrap();
        let telling = async {
            for number in 0..3 {
                viewer.tell(number).await.unwrap();
            }
            viewer.end(Status::unavailable("this server stops"));
        };
        let (told, ()) = tokio::join!(view.collect::<Vec<_>>(), telling);
        assert_eq!(told.len(), 4);
        assert!(
            told[..3]
                .iter()
                .zip(0..)
                .all(|(told, number)| *told.as_ref().unwrap() == number)
        );
        assert!(told[3].is_err());
    }
}
