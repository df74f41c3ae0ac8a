//! Atomic batches (ADR-50): one decision, and with `sync_interval: always` one
//! fsync, for all of them. Three headers make a batch; the last message's
//! answer is for all.

use async_nats::client::PublishErrorKind;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::{Request, RequestErrorKind, StatusCode};
use event_model::Event;
use queue::QueueError;
use tokio::time::timeout;

use crate::connect::{Link, REQUEST};
use crate::failure::failed;
use crate::message;
use crate::publishing::pulse::Pulse;
use crate::publishing::{PUBLISHING, Placed};

/// Most events of a batch; the server's limit is 1,000.
const MAX_EVENTS: usize = 256;

/// Most bytes of a batch: it is held in memory here and on every server.
const MAX_BYTES: usize = 4 << 20;

/// Why nothing of a batch is stored.
pub(crate) enum Refused {
    /// Because of what is in it, or of how the server stands: one by one may work.
    Whole(String),
    /// For reasons that concern every write. It may be stored all the same.
    Failed(QueueError),
}

/// Cuts events into what fits a batch, in order.
pub(crate) fn groups(events: &[Event]) -> impl Iterator<Item = &[Event]> {
    let mut rest = events;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |event: &&Event| {
            bytes += event.body().len();
            bytes <= MAX_BYTES
        };
        let count = rest.iter().take(MAX_EVENTS).take_while(fits).count().max(1).min(rest.len());
        let (group, later) = rest.split_at(count);
        rest = later;
        (!group.is_empty()).then_some(group)
    })
}

/// Events that are stored together or not at all.
pub(crate) struct Batch<'e>(pub(crate) &'e [Event]);

impl Batch<'_> {
    pub(crate) async fn publish(&self, link: &Link, pulse: &Pulse) -> Result<Vec<Placed>, Refused> {
        let connected = link.wait().await;
        connected.map_err(|error| Refused::Failed(QueueError::unavailable(PUBLISHING, error)))?;
        let begun = pulse.begin();
        let answer = match timeout(REQUEST * 2, self.send(link)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(refused @ Refused::Whole(_))) => return Err(refused),
            Ok(Err(failed)) => {
                pulse.missed(begun).await;
                return Err(failed);
            }
            Err(_) => {
                pulse.missed(begun).await;
                return Err(Refused::Failed(QueueError::unavailable(PUBLISHING, "no answer in time")));
            }
        };
        pulse.felt();
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Refused::Failed(QueueError::unavailable(PUBLISHING, "no stream listens")));
        }
        match serde_json::from_slice(&answer.payload) {
            Ok(Response::Ok(ack)) => self.places(&ack),
            Ok(Response::Err { error }) => Err(sorted(error)),
            Err(error) => Err(Refused::Failed(QueueError::unavailable(PUBLISHING, error))),
        }
    }

    async fn send(&self, link: &Link) -> Result<async_nats::Message, Refused> {
        let batch = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        let last = self.0.len() - 1;
        for (number, event) in self.0.iter().enumerate() {
            let mut headers = message::headers_with_id(event, &event.id().to_string());
            headers.insert("Nats-Batch-Id", batch.as_str());
            headers.insert("Nats-Batch-Sequence", (number + 1).to_string());
            let (subject, body) = (event.subject(), event.body().clone());
            if number == last {
                headers.insert("Nats-Batch-Commit", "1");
                let request = Request::new().headers(headers).payload(body).timeout(Some(REQUEST));
                let answer = link.client.send_request(subject, request).await;
                return answer.map_err(|error| match error.kind() {
                    RequestErrorKind::MaxPayloadExceeded => Refused::Whole(error.to_string()),
                    _ => Refused::Failed(failed(PUBLISHING)(error)),
                });
            }
            let sent = link.client.publish_with_headers(subject, headers, body).await;
            sent.map_err(|error| match error.kind() {
                PublishErrorKind::MaxPayloadExceeded => Refused::Whole(error.to_string()),
                _ => Refused::Failed(failed(PUBLISHING)(error)),
            })?;
        }
        Err(Refused::Failed(QueueError::unavailable(PUBLISHING, "an empty batch")))
    }

    /// A committed batch is contiguous, and ends where the answer says. A server
    /// that does not know batches answers for the last message alone.
    fn places(&self, ack: &PublishAck) -> Result<Vec<Placed>, Refused> {
        if ack.batch_size != Some(self.0.len() as u64) {
            return Err(Refused::Whole("the server does not know atomic batches".to_owned()));
        }
        let first = (ack.sequence + 1).saturating_sub(self.0.len() as u64);
        Ok((first..=ack.sequence).map(|sequence| Placed { sequence, is_duplicate: false }).collect())
    }
}

fn sorted(error: async_nats::jetstream::Error) -> Refused {
    const OF_ITSELF: [ErrorCode; 6] = [
        ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE,
        ErrorCode::ATOMIC_PUBLISH_DISABLED,
        ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH,
        ErrorCode::ATOMIC_PUBLISH_TOO_LARGE_BATCH,
        ErrorCode::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT,
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM,
    ];
    if OF_ITSELF.contains(&error.error_code()) {
        return Refused::Whole(error.to_string());
    }
    Refused::Failed(failed(PUBLISHING)(error))
}
