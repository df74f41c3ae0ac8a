//! Writing to streams: every message has an id, every write a deadline.

mod batch;
mod lanes;
mod pulse;

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use bytes::Bytes;
use event_model::Event;
use queue::{Published, QueueError, Receipt};

pub(crate) use crate::publishing::lanes::Lanes;

use crate::connect::{Link, REQUEST};
use crate::failure::failed;
use crate::message;
use crate::publishing::batch::{Batch, Refused};
use crate::publishing::pulse::Pulse;

const PUBLISHING: &str = "publishing to NATS";

/// Where a message was stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) sequence: u64,
    pub(crate) is_duplicate: bool,
}

/// Writes messages.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    link: Link,
    pulse: Pulse,
}

impl Publisher {
    pub(crate) fn new(link: Link) -> Self {
        Self { pulse: Pulse::new(link.clone()), link }
    }

    /// Stores one message. Its headers have its id.
    pub(crate) async fn put(
        &self,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Placed, QueueError> {
        self.link.wait().await.map_err(|error| QueueError::unavailable(PUBLISHING, error))?;
        let begun = self.pulse.begin();
        let message = PublishMessage::build().headers(headers).payload(body);
        let publish = async { self.link.jetstream.send_publish(subject, message).await?.await };
        // Waiting for a place among those in flight has no deadline of its own.
        let Ok(answer) = tokio::time::timeout(REQUEST * 2, publish).await else {
            self.pulse.missed(begun).await;
            return Err(QueueError::unavailable(PUBLISHING, "no answer in time"));
        };
        match answer {
            Ok(ack) => {
                self.pulse.felt();
                Ok(Placed { sequence: ack.sequence, is_duplicate: ack.duplicate })
            }
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => Err(QueueError::TooLarge),
            Err(error) => {
                if error.kind() == PublishErrorKind::TimedOut {
                    self.pulse.missed(begun).await;
                }
                Err(failed(PUBLISHING)(error))
            }
        }
    }

    /// Stores events in this order, all or none where the server allows it.
    pub(crate) async fn publish(&self, events: &[Event], epoch: &str) -> Published {
        let mut published = Published::default();
        for group in batch::groups(events) {
            let error = self.publish_group(group, epoch, &mut published.receipts).await.err();
            if error.is_some() {
                return Published { error, ..published };
            }
        }
        published
    }

    async fn publish_group(
        &self,
        group: &[Event],
        epoch: &str,
        receipts: &mut Vec<Receipt>,
    ) -> Result<(), QueueError> {
        let receipt = |placed: Placed| Receipt {
            duplicate: placed.is_duplicate,
            epoch: epoch.to_owned(),
            position: placed.sequence,
        };
        if group.len() > 1 {
            match Batch(group).publish(&self.link, &self.pulse).await {
                Ok(placed) => {
                    receipts.extend(placed.into_iter().map(receipt));
                    return Ok(());
                }
                Err(Refused::Whole(why)) => tracing::debug!(why, "a batch was refused: one by one"),
                Err(Refused::Failed(error)) => return Err(error),
            }
        }
        for event in group {
            let id = event.id().to_string();
            let headers = message::headers_with_id(event, &id);
            receipts.push(receipt(self.put(event.subject(), headers, event.body().clone()).await?));
        }
        Ok(())
    }

    /// Stores one event under another message id than its own: the server knows
    /// its own id, but has lost the message.
    pub(crate) async fn publish_again(&self, event: &Event, epoch: &str) -> Result<Receipt, QueueError> {
        let id = format!("{}/refed/{:08x}", event.id(), fastrand::u32(..));
        let headers = message::headers_with_id(event, &id);
        let placed = self.put(event.subject(), headers, event.body().clone()).await?;
        Ok(Receipt { duplicate: false, epoch: epoch.to_owned(), position: placed.sequence })
    }
}
