//! Writing to streams: every message has an id, and every write a deadline.

mod batch;
mod connection_watchdog;
mod rounds;

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use bytes::Bytes;
use event_model::Event;
use futures::future::join_all;
use queue::{PublishResults, QueueError, Receipt};
use tokio::time::{Instant, sleep};

use crate::connect::{NatsConnection, REQUEST};
use crate::failure::{code, failed};
use crate::message;
use crate::publishing::connection_watchdog::ConnectionWatchdog;
use crate::publishing::rounds::rounds;
use crate::streams::Shard;

const PUBLISHING: &str = "publishing to NATS";

/// Time for which a message is sent again if no server stores its subject, and the pause between.
/// A stream has no server while its leader changes, and for moments after it was made, until
/// every server of the cluster has heard of it. Nothing was stored, so trying again can't store
/// twice.
const NO_RESPONDERS_FOR: Duration = REQUEST;
const NO_RESPONDERS_RETRY: Duration = Duration::from_millis(50);

/// Sequence under which a message was stored, and whether it was stored before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublishedAt {
    pub(crate) sequence: u64,
    pub(crate) is_duplicate: bool,
}

impl From<&PublishAck> for PublishedAt {
    fn from(ack: &PublishAck) -> Self {
        Self {
            sequence: ack.sequence,
            is_duplicate: ack.duplicate,
        }
    }
}

impl PublishedAt {
    /// Returns the receipt of an event that was stored there.
    fn receipt(self, epoch: &str) -> Result<Receipt, QueueError> {
        let position = Shard::ONLY.position(self.sequence)?;
        Ok(Receipt {
            duplicate: self.is_duplicate,
            epoch: epoch.to_owned(),
            position,
        })
    }
}

/// Writes messages.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    link: NatsConnection,
    pulse: ConnectionWatchdog,
}

impl Publisher {
    pub(crate) fn new(link: NatsConnection) -> Self {
        Self {
            pulse: ConnectionWatchdog::new(link.clone()),
            link,
        }
    }

    /// Stores one message, whose id is among its headers.
    pub(crate) async fn put(
        &self,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<PublishedAt, QueueError> {
        self.link
            .wait()
            .await
            .map_err(|error| QueueError::unavailable(PUBLISHING, error))?;
        let begun = self.pulse.begin();
        let publish = self.send(subject, headers, body);
        // The wait for a permit has no deadline of its own.
        let Ok(answer) = tokio::time::timeout(REQUEST * 2, publish).await else {
            self.pulse.on_timeout(begun).await;
            return Err(QueueError::unavailable(PUBLISHING, "no answer in time"));
        };
        match answer {
            Ok(ack) => {
                self.pulse.on_reply();
                Ok(PublishedAt::from(&ack))
            }
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                Err(QueueError::TooLarge)
            }
            Err(error) => {
                if error.kind() == PublishErrorKind::TimedOut {
                    self.pulse.on_timeout(begun).await;
                }
                Err(failed(PUBLISHING)(error))
            }
        }
    }

    /// Sends one message, and again while no server stores it.
    async fn send(
        &self,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<PublishAck, PublishError> {
        let began = Instant::now();
        loop {
            let message = PublishMessage::build()
                .headers(headers.clone())
                .payload(body.clone());
            let answer = async {
                self.link
                    .jetstream
                    .send_publish(subject.clone(), message)
                    .await?
                    .await
            };
            match answer.await {
                Err(error)
                    if error.kind() == PublishErrorKind::StreamNotFound
                        && began.elapsed() < NO_RESPONDERS_FOR =>
                {
                    sleep(NO_RESPONDERS_RETRY).await;
                }
                answer => return answer,
            }
        }
    }

    /// Stores a message without a conclusion about the connection: a process without the right to
    /// write there never gets an answer.
    pub(crate) async fn put_bounded(
        &self,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(), QueueError> {
        self.put_aside(subject, headers, body).await.map(drop)
    }

    /// Stores a message like `put_bounded`, and returns where.
    pub(crate) async fn put_aside(
        &self,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<PublishedAt, QueueError> {
        match self.answered_aside(subject, headers, body).await? {
            Ok(ack) => Ok(PublishedAt::from(&ack)),
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                Err(QueueError::TooLarge)
            }
            Err(error) => Err(failed(PUBLISHING)(error)),
        }
    }

    /// Stores a message like `put_bounded` if the subject holds what its headers expect; `false` if
    /// it holds something else.
    pub(crate) async fn put_if(
        &self,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<bool, QueueError> {
        match self.answered_aside(subject, headers, body).await? {
            Ok(_) => Ok(true),
            Err(error) if is_wrong_sequence(&error) => Ok(false),
            Err(error) => Err(failed(PUBLISHING)(error)),
        }
    }

    async fn answered_aside(
        &self,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Result<PublishAck, PublishError>, QueueError> {
        self.link
            .wait()
            .await
            .map_err(|error| QueueError::unavailable(PUBLISHING, error))?;
        let answer = tokio::time::timeout(REQUEST * 2, self.send(subject, headers, body)).await;
        answer.map_err(|_| QueueError::unavailable(PUBLISHING, "no answer in time"))
    }

    /// Stores small messages of one stream, without ids. The answer to the last one confirms all:
    /// a server takes a connection's messages in order.
    pub(crate) async fn put_together(
        &self,
        mut messages: Vec<(String, Bytes)>,
    ) -> Result<(), QueueError> {
        let Some((subject, body)) = messages.pop() else {
            return Ok(());
        };
        self.link
            .wait()
            .await
            .map_err(|error| QueueError::unavailable(PUBLISHING, error))?;
        for (subject, body) in messages {
            self.link
                .client
                .publish(subject, body)
                .await
                .map_err(failed(PUBLISHING))?;
        }
        let message = PublishMessage::build().payload(body);
        let answer = async {
            self.link
                .jetstream
                .send_publish(subject, message)
                .await?
                .await
        };
        answer.await.map(drop).map_err(failed(PUBLISHING))
    }

    /// Stores events, those of an entity in this order: many in batches, few as plain messages.
    /// Decision 0009 has the reasons.
    pub(crate) async fn publish(&self, mut events: &[Event], epoch: &str) -> PublishResults {
        let mut published = PublishResults::default();
        while published.error.is_none() && !events.is_empty() {
            let fitting = batch::fitting(events);
            let (some, rest) = events.split_at(if fitting > 0 { fitting } else { events.len() });
            let next = match fitting > 0 {
                true => self.publish_as_batch(some, epoch).await,
                false => self.publish_in_rounds(some, epoch).await,
            };
            published.receipts.extend(next.receipts);
            (published.error, events) = (next.error, rest);
        }
        published
    }

    async fn publish_as_batch(&self, events: &[Event], epoch: &str) -> PublishResults {
        if self.link.is_connected()
            && let Some(placed) = batch::publish(&self.link, events).await
        {
            self.pulse.on_reply();
            return in_order(
                placed.into_iter().map(|placed| Some(Ok(placed))).collect(),
                None,
                epoch,
            );
        }
        self.publish_in_rounds(events, epoch).await
    }

    /// Stores plain messages, as many in flight as their entities allow.
    async fn publish_in_rounds(&self, events: &[Event], epoch: &str) -> PublishResults {
        let mut answers: Vec<Option<Result<PublishedAt, QueueError>>> =
            events.iter().map(|_| None).collect();
        let mut stopped = None;
        for round in rounds(events) {
            let sent = join_all(round.iter().map(|index| self.put_event(&events[*index]))).await;
            // An event that does not fit is no reason to stop: it will never be stored.
            let failures = sent.iter().filter_map(|answer| answer.as_ref().err());
            stopped = failures
                .filter(|error| !matches!(error, QueueError::TooLarge))
                .map(QueueError::duplicate)
                .next();
            round
                .into_iter()
                .zip(sent)
                .for_each(|(index, answer)| answers[index] = Some(answer));
            if stopped.is_some() {
                break;
            }
        }
        in_order(answers, stopped, epoch)
    }

    /// Stores one event.
    pub(crate) async fn publish_one(
        &self,
        event: &Event,
        epoch: &str,
    ) -> Result<Receipt, QueueError> {
        self.put_event(event).await?.receipt(epoch)
    }

    async fn put_event(&self, event: &Event) -> Result<PublishedAt, QueueError> {
        let headers = message::headers_with_id(event, event.id().to_string());
        self.put(event.subject(), headers, event.body().clone())
            .await
    }

    /// Stores one event under another message id than its own: the server knows its own id, but
    /// has lost the message.
    pub(crate) async fn republish(
        &self,
        event: &Event,
        epoch: &str,
    ) -> Result<Receipt, QueueError> {
        let id = format!("{}/refed/{:08x}", event.id(), fastrand::u32(..));
        let headers = message::headers_with_id(event, id);
        let placed = self
            .put(event.subject(), headers, event.body().clone())
            .await?;
        PublishedAt {
            is_duplicate: false,
            ..placed
        }
        .receipt(epoch)
    }
}

/// Returns the receipts up to the first event that was not stored, and the reason for that one.
/// Later events that were stored are known when they come again.
fn in_order(
    answers: Vec<Option<Result<PublishedAt, QueueError>>>,
    stopped: Option<QueueError>,
    epoch: &str,
) -> PublishResults {
    let mut published = PublishResults::default();
    for answer in answers {
        match answer.map(|answer| answer?.receipt(epoch)) {
            Some(Ok(receipt)) => published.receipts.push(receipt),
            Some(Err(error)) => {
                return PublishResults {
                    error: Some(error),
                    ..published
                };
            }
            None => {
                return PublishResults {
                    error: stopped,
                    ..published
                };
            }
        }
    }
    published
}

fn is_wrong_sequence(error: &PublishError) -> bool {
    // Under load the server gives this error for the same reason.
    error.kind() == PublishErrorKind::WrongLastSequence
        || code(error) == Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
}
