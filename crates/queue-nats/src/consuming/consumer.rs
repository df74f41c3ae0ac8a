use futures::FutureExt;
use futures::future::BoxFuture;
use queue::{Consumer, Delivery, QueueError};
use tokio::sync::{mpsc, oneshot};

/// Somebody waits for deliveries.
pub(crate) struct Want {
    pub(crate) permits: usize,
    pub(crate) answer: oneshot::Sender<Result<Vec<Delivery>, QueueError>>,
}

/// One reader of a route: asks the task that feeds it.
#[derive(Debug)]
pub(crate) struct NatsConsumer(pub(crate) mpsc::Sender<Want>);

impl Consumer for NatsConsumer {
    fn next(&mut self, permits: usize) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        async move {
            let (answer, answered) = oneshot::channel();
            self.0.send(Want { permits, answer }).await.map_err(|_| QueueError::Closed)?;
            answered.await.unwrap_or(Err(QueueError::Closed))
        }
        .boxed()
    }
}
