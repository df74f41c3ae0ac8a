//! The consumer that a dispatcher reads: it requests deliveries from the task that fetches them.

use std::collections::VecDeque;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use queue::{Consumer, Delivery, QueueError};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::consuming::fetcher::BATCH;
use crate::consuming::route_consumer::PendingDelivery;

/// Time for which a probe of a destination waits for a first attempt, before it takes a delivery
/// that failed before.
const FIRST_WITHIN: Duration = Duration::from_millis(250);

/// A caller that waits for deliveries.
pub(crate) struct FetchRequest {
    pub(crate) permits: usize,
    /// Until this time, only first attempts will do.
    pub(crate) new_until: Option<Instant>,
    pub(crate) answer: oneshot::Sender<Result<Vec<Delivery>, QueueError>>,
}

impl FetchRequest {
    /// Returns the time until which only first attempts are wanted, if it is not over.
    pub(crate) fn only_new_until(&self) -> Option<Instant> {
        self.new_until.filter(|until| *until > Instant::now())
    }

    /// Takes what suits the caller, if it is there.
    pub(crate) fn choose(
        &self,
        waiting: &mut VecDeque<PendingDelivery>,
    ) -> Option<Vec<PendingDelivery>> {
        if self.new_until.is_some() {
            let new = waiting.iter().position(PendingDelivery::is_new);
            let chosen = if self.only_new_until().is_some() {
                new?
            } else {
                new.unwrap_or(0)
            };
            return waiting.remove(chosen).map(|taken| vec![taken]);
        }
        let count = self.permits.min(waiting.len()).min(BATCH);
        Some(waiting.drain(..count).collect())
    }
}

/// A reader of a route: sends its requests to the task that feeds it.
#[derive(Debug)]
pub(crate) struct NatsConsumer(pub(crate) mpsc::Sender<FetchRequest>);

impl NatsConsumer {
    async fn wait_for(
        &self,
        permits: usize,
        new_until: Option<Instant>,
    ) -> Result<Vec<Delivery>, QueueError> {
        let (answer, answered) = oneshot::channel();
        self.0
            .send(FetchRequest {
                permits,
                new_until,
                answer,
            })
            .await
            .map_err(|_| QueueError::Closed)?;
        answered.await.unwrap_or(Err(QueueError::Closed))
    }
}

impl Consumer for NatsConsumer {
    fn next(&mut self, permits: usize) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        self.wait_for(permits, None).boxed()
    }

    fn next_to_probe(&mut self) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>> {
        self.wait_for(1, Some(Instant::now() + FIRST_WITHIN))
            .boxed()
    }
}
