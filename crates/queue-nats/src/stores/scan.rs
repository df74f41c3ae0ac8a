//! Scans: reading a stream through, by a consumer that is made for it and then removed.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::{HeaderMap, Message, StatusCode, Subscriber};
use bytes::Bytes;
use event_model::Timestamp;
use futures::StreamExt;
use queue::QueueError;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use crate::api;
use crate::connect::{NatsConnection, REQUEST};
use crate::failure::failed;
use crate::streams::StreamName;

const READING: &str = "reading a stream";

/// Messages of one request, when they are small.
const BATCH: u64 = 512;
const BATCH_OF_HEADERS: u64 = 8192;

/// Time without requests after which the server removes the consumer.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// Most requests in a row that bring nothing although there is more, and the pause between them:
/// in a cluster a consumer may be made before every server knows where it is.
const IN_VAIN: u32 = 40;
const AGAIN: Duration = Duration::from_millis(50);

/// Longest time for which it is waited for a server that is behind.
const BEHIND_FOR: Duration = Duration::from_secs(10);

/// Longest time for reading a stream. 10 GiB of events are read in less by a server that sends 40
/// MB/s; whoever asks has given up long before.
const WHOLE: Duration = Duration::from_mins(5);

/// Statuses by which the server ends a request that it can't fill, or says that nobody listens to
/// it.
const ENDS: [StatusCode; 3] = [
    StatusCode::NOT_FOUND,
    StatusCode::TIMEOUT,
    StatusCode::NO_RESPONDERS,
];

/// Messages to read.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub(crate) stream: StreamName,
    pub(crate) subject: String,
    /// The first sequence.
    pub(crate) from: u64,
    /// Begins instead with what was stored at this time or later.
    pub(crate) since: Option<Timestamp>,
    pub(crate) headers_only: bool,
}

/// The part of a stream that was confirmed when the scan began, by sequences.
#[derive(Clone, Copy, Debug)]
struct SequenceRange {
    from: u64,
    up_to: u64,
}

impl SequenceRange {
    /// What of it comes after this sequence.
    fn behind(self, last: u64) -> Self {
        Self {
            from: self.from.max(last + 1),
            ..self
        }
    }
}

/// One stored message.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    /// Number of messages that come after it.
    pub(crate) pending: u64,
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Scan {
    /// Hands every message that is stored now, and still is when its turn comes, in order, to
    /// `each`, until that says stop. Returns the last sequence that was handed over.
    pub(crate) async fn each(
        &self,
        link: &NatsConnection,
        each: impl FnMut(Stored) -> bool,
    ) -> Result<u64, QueueError> {
        let name = format!("scan-{:016x}", fastrand::u64(..));
        let read = self.read_in_time(link, &name, each).await;
        // If this fails, the server removes it by itself.
        let _ = api::delete_consumer(link, self.stream, &name).await;
        read
    }

    /// Scans like `each`, for callers without the right to remove consumers: the server removes
    /// this one by itself.
    pub(crate) async fn each_without_removing(
        &self,
        link: &NatsConnection,
        each: impl FnMut(Stored) -> bool,
    ) -> Result<u64, QueueError> {
        self.read_in_time(link, &format!("scan-{:016x}", fastrand::u64(..)), each)
            .await
    }

    async fn read_in_time(
        &self,
        link: &NatsConnection,
        name: &str,
        each: impl FnMut(Stored) -> bool,
    ) -> Result<u64, QueueError> {
        let read = timeout(WHOLE, self.read(link, name, each)).await;
        read.unwrap_or_else(|_| Err(QueueError::unavailable(READING, "it took too long")))
    }

    async fn read(
        &self,
        link: &NatsConnection,
        name: &str,
        mut each: impl FnMut(Stored) -> bool,
    ) -> Result<u64, QueueError> {
        let stream = api::stream_info(link, self.stream).await;
        let stream = stream.map_err(|error| error.of(READING))?;
        let made = api::put_scan(link, self.stream, name, &self.config(name), self.since).await;
        let made = made.map_err(|error| error.of(READING))?;
        let end = SequenceRange {
            from: self.from.max(made.delivered.stream_sequence + 1),
            up_to: stream.state.last_sequence,
        };
        let is_replicated = stream.config.num_replicas > 1;
        let mut left = made.num_pending;
        let mut requests = Requests::open(link, self.stream, name).await?;
        let mut last = 0;
        let mut in_vain = 0;
        let mut behind_since = None;
        loop {
            while left > 0 {
                let batch = left.min(if self.headers_only {
                    BATCH_OF_HEADERS
                } else {
                    BATCH
                });
                requests.ask(batch).await?;
                let mut came = 0;
                // Messages that others remove meanwhile are not waited for; messages that others
                // add are not read.
                while came < batch && left > 0 {
                    let Some(stored) = requests.next().await? else {
                        break;
                    };
                    came += 1;
                    last = stored.sequence;
                    left = (left - 1).min(stored.pending);
                    if !each(stored) {
                        return Ok(last);
                    }
                }
                if came > 0 {
                    in_vain = 0;
                    continue;
                }
                in_vain += 1;
                if in_vain > IN_VAIN {
                    return Err(QueueError::unavailable(
                        READING,
                        "the server has more and does not send it",
                    ));
                }
                left = left.min(self.pending(link, name).await?);
                sleep(AGAIN).await;
            }
            if !is_replicated || !self.has_more(link, end.behind(last)).await? {
                return Ok(last);
            }
            let since = *behind_since.get_or_insert_with(Instant::now);
            if since.elapsed() > BEHIND_FOR {
                return Err(QueueError::unavailable(
                    READING,
                    "the server that sends it is behind the one that leads the stream",
                ));
            }
            sleep(AGAIN).await;
            left = self.pending(link, name).await?;
        }
    }

    /// Whether the server that leads the stream has a message of this part of it. The one that
    /// sends may be behind, and then knows nothing of what was confirmed a moment ago.
    async fn has_more(
        &self,
        link: &NatsConnection,
        part: SequenceRange,
    ) -> Result<bool, QueueError> {
        if part.from > part.up_to {
            return Ok(false);
        }
        let request = json!({ "seq": part.from, "next_by_subj": self.subject });
        let found = api::get_message(link, self.stream, &request).await;
        let found = found.map_err(|error| error.of(READING))?;
        Ok(found.is_some_and(|found| {
            let is_wanted = self
                .since
                .is_none_or(|since| found.time.unix_timestamp_nanos() >= since.as_nanosecond());
            found.sequence <= part.up_to && is_wanted
        }))
    }

    /// Returns how much the server has still to send. A server that does not know the consumer
    /// yet gives no number.
    async fn pending(&self, link: &NatsConnection, name: &str) -> Result<u64, QueueError> {
        match api::consumer_info(link, self.stream, name).await {
            Ok(info) => Ok(info.num_pending),
            Err(error) if error.is_missing() => Ok(u64::MAX),
            Err(error) => Err(error.of(READING)),
        }
    }

    fn config(&self, name: &str) -> pull::Config {
        pull::Config {
            name: Some(name.to_owned()),
            filter_subject: self.subject.clone(),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: self.from.max(1),
            },
            ack_policy: AckPolicy::None,
            headers_only: self.headers_only,
            inactive_threshold: FORGET_AFTER,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        }
    }
}

/// Fetches from a consumer, some messages at a time.
struct Requests<'l> {
    link: &'l NatsConnection,
    subject: String,
    inbox: String,
    answers: Subscriber,
}

impl<'l> Requests<'l> {
    async fn open(
        link: &'l NatsConnection,
        stream: StreamName,
        consumer: &str,
    ) -> Result<Self, QueueError> {
        let inbox = link.client.new_inbox();
        let answers = link
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(failed(READING))?;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        Ok(Self {
            link,
            subject,
            inbox,
            answers,
        })
    }

    /// Requests up to `batch` messages, without waiting for later ones.
    async fn ask(&self, batch: u64) -> Result<(), QueueError> {
        let request = json!({ "batch": batch, "no_wait": true }).to_string();
        let subject = self.subject.clone();
        let inbox = self.inbox.clone();
        let asked = self
            .link
            .client
            .publish_with_reply(subject, inbox, request.into())
            .await;
        asked.map_err(failed(READING))
    }

    /// Returns the next message, or `None` if the request ended before it was filled.
    async fn next(&mut self) -> Result<Option<Stored>, QueueError> {
        let answer = timeout(REQUEST, self.answers.next()).await.ok().flatten();
        let answer = answer.ok_or_else(|| QueueError::unavailable(READING, "no answer in time"))?;
        match answer.status {
            None | Some(StatusCode::OK) => Ok(Some(stored(answer))),
            Some(status) if ENDS.contains(&status) => Ok(None),
            Some(status) => Err(QueueError::unavailable(
                READING,
                format!("the server said {status}"),
            )),
        }
    }
}

fn stored(message: Message) -> Stored {
    let reply = message
        .reply
        .as_ref()
        .map(async_nats::Subject::as_str)
        .unwrap_or_default();
    let tokens: Vec<&str> = reply.split('.').collect();
    // As in ADR-15: the sequence in the stream, that in the consumer, the time, and the number of
    // messages left.
    let at = if tokens.len() >= 11 { 7 } else { 5 };
    let number = |at: usize| tokens.get(at).and_then(|token| token.parse().ok());
    Stored {
        sequence: number(at).unwrap_or(0),
        pending: number(at + 3).unwrap_or(u64::MAX),
        subject: message.subject.to_string(),
        headers: message.headers.unwrap_or_default(),
        body: message.payload,
    }
}
