use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use queue::{Consumer, Delivery, QueueError};
use tokio::sync::oneshot;

use crate::reading::route::RouteBuffer;
use crate::shared::Shared;
use crate::writing::claim::Claim;

/// One reader of a route's buffer.
#[derive(Debug)]
pub(crate) struct EmbeddedConsumer {
    pub(crate) route: Arc<RouteBuffer>,
    pub(crate) shared: Arc<Shared>,
}

impl Consumer for EmbeddedConsumer {
    fn next(&mut self, permits: usize) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        async move {
            let mut failed = self.shared.watch_failure();
            loop {
                let filled = self.route.filled.notified();
                tokio::pin!(filled);
                filled.as_mut().enable();
                if let Some(why) = self.shared.failure() {
                    return Err(QueueError::Failed(why));
                }
                if self.shared.is_closing() {
                    return Err(QueueError::Closed);
                }
                match self.claim(permits) {
                    Some(answer) => {
                        let claimed = answer.await.unwrap_or(Err(QueueError::Closed))?;
                        if !claimed.is_empty() {
                            return Ok(claimed);
                        }
                    }
                    None => tokio::select! {
                        () = filled => {}
                        _ = failed.changed() => {}
                    },
                }
            }
        }
        .boxed()
    }
}

impl EmbeddedConsumer {
    /// Takes from the buffer and asks the writer to record it, if there is any.
    fn claim(&self, permits: usize) -> Option<oneshot::Receiver<Result<Vec<Delivery>, QueueError>>> {
        let (reply, answer) = oneshot::channel();
        let taken = self.route.take(permits.max(1), |taken| {
            let claim = Claim::new(Arc::clone(&self.route), Arc::clone(&self.shared), taken, reply);
            self.shared.submit(claim);
        });
        if self.route.is_half_empty() {
            self.shared.wake_feeder();
        }
        taken.then_some(answer)
    }
}
