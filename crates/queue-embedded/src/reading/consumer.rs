//! Consumers of a route's deliveries.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use queue::{Consumer, Delivery, QueueError};
use tokio::sync::oneshot;

use crate::reading::lanes::DeliveryRequest;
use crate::reading::route::RouteBuffer;
use crate::shared::Shared;
use crate::writing::claim::ClaimJob;

/// One reader of a route's buffer.
#[derive(Debug)]
pub(crate) struct EmbeddedConsumer {
    pub(crate) route: Arc<RouteBuffer>,
    pub(crate) shared: Arc<Shared>,
}

impl Consumer for EmbeddedConsumer {
    fn next(&mut self, permits: usize) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        self.wait_for(DeliveryRequest::InTurns(permits.max(1)))
    }

    fn next_to_probe(&mut self) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        self.wait_for(DeliveryRequest::Probe)
    }
}

impl EmbeddedConsumer {
    fn wait_for(
        &mut self,
        wanted: DeliveryRequest,
    ) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        async move {
            let mut failed = self.shared.status().watch_failure();
            loop {
                let filled = self.route.filled.notified();
                tokio::pin!(filled);
                filled.as_mut().enable();
                if let Some(why) = self.shared.status().failure() {
                    return Err(QueueError::Failed(why));
                }
                if self.shared.is_closing() {
                    return Err(QueueError::Closed);
                }
                match self.claim(wanted) {
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

    /// Takes deliveries from the buffer and asks the writer to record their attempts. `None` if
    /// the buffer has none, or settlements wait for room.
    fn claim(
        &self,
        wanted: DeliveryRequest,
    ) -> Option<oneshot::Receiver<Result<Vec<Delivery>, QueueError>>> {
        if self.route.is_blocked() {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        let taken = self.route.take(wanted, |taken| {
            let claim = ClaimJob::new(
                Arc::clone(&self.route),
                Arc::clone(&self.shared),
                taken,
                reply,
            );
            self.shared.submit(claim);
        });
        if self.route.wants_more().is_some() || self.route.wants_retries().is_some() {
            self.shared.wake_tail_reader();
        }
        taken.then_some(answer)
    }
}
