//! A durable pull consumer on the server, with the requests that were made to it. Requests and
//! their answers are as in ADR-37.

use std::time::Duration;

use async_nats::{Message, StatusCode, Subject, Subscriber};
use futures::{FutureExt, StreamExt};
use queue::QueueError;
use serde_json::json;
use tokio::time::Instant;

use crate::cluster::MAX_MESSAGE;
use crate::connect::NatsConnection;
use crate::consuming::unknown_keys::UnknownKeys;
use crate::failure::failed;
use crate::streams::StreamName;

/// Time for which the server keeps a request of a busy route. A request can't be taken back:
/// stopping waits for its end.
const BRIEF: Duration = Duration::from_secs(1);

/// Longest time for which it keeps a request of a route for which nothing comes: each request
/// costs the servers something in every process and route. Every request that ends empty doubles
/// the time up to this. Such a request is cancelled by no longer listening; messages that are
/// sent in that moment come again when their leases end.
const LONG: Duration = Duration::from_secs(30);

/// Interval at which the server says that a long request is still open.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Silence beyond the promised interval after which a request is taken for lost with its leader.
const SILENCE: Duration = Duration::from_secs(2);

/// Time that messages on their way may take after nothing is requested any more.
const DRAINED_WITHIN: Duration = Duration::from_secs(3);

/// Most bytes of one request: more than the largest message takes, with its subjects. Whoever asks
/// for many gets fewer, if they are large.
pub(super) const PULL_BYTES: u64 = MAX_MESSAGE as u64 + (64 << 10);

/// The server's answer that the next message is larger than what is left of that, in part, and
/// that everything came that was requested, which it says only where bytes are limited.
const EXCEEDED: &str = "MaxBytes";
const COMPLETED: &str = "Batch Completed";

/// Header with the number of messages of a request that will not come.
const PENDING: &str = "Nats-Pending-Messages";

/// Something that a request has brought.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// A message to deliver.
    Message(Message),
    /// An answer that concerns only the requests themselves.
    Nothing,
    /// The consumer does not exist any more.
    Deleted,
}

/// A consumer, with its open requests.
#[derive(Debug)]
pub(crate) struct PullConsumer {
    pub(crate) stream: StreamName,
    consumer: String,
    answers: Subscriber,
    inbox: Subject,
    /// Messages that were requested and have not come.
    outstanding: usize,
    /// Whether a message has come since nothing was outstanding.
    has_come: bool,
    /// Whether the next message is larger than any of ours: it is requested without a limit.
    is_unlimited: bool,
    /// Time for which the server keeps the next request, and kept the last.
    expires: Duration,
    asked_for: Duration,
    heard: Instant,
    /// Earliest time of the next request: a server that refused one would refuse another.
    not_before: Instant,
    /// Time until which it is left alone, since nothing in it can be verified.
    rests_until: Instant,
    keys: UnknownKeys,
}

impl PullConsumer {
    pub(crate) async fn open(
        link: &NatsConnection,
        stream: StreamName,
        consumer: &str,
    ) -> Result<Self, QueueError> {
        let (inbox, answers) = listen(link).await?;
        let consumer = consumer.to_owned();
        let now = Instant::now();
        Ok(Self {
            stream,
            consumer,
            answers,
            inbox,
            outstanding: 0,
            has_come: false,
            is_unlimited: false,
            expires: BRIEF,
            asked_for: BRIEF,
            heard: now,
            not_before: now,
            rests_until: now,
            keys: UnknownKeys::default(),
        })
    }

    /// Requests messages so that about `wanted` are on their way. Small numbers wait: a request
    /// costs as much as a message.
    pub(crate) async fn ask(
        &mut self,
        link: &NatsConnection,
        wanted: usize,
    ) -> Result<(), QueueError> {
        let wanted = wanted.min(self.keys.most());
        if !link.is_connected()
            || self.outstanding * 2 >= wanted
            || Instant::now() < self.not_before()
        {
            return Ok(());
        }
        let batch = wanted - self.outstanding;
        let mut request = json!({ "batch": batch, "expires": nanos(self.expires) });
        if !self.is_unlimited {
            request["max_bytes"] = PULL_BYTES.into();
        }
        if self.expires >= HEARTBEAT * 2 {
            request["idle_heartbeat"] = nanos(HEARTBEAT).into();
        }
        let subject = format!(
            "$JS.API.CONSUMER.MSG.NEXT.{}.{}",
            self.stream, self.consumer
        );
        let sent =
            link.client
                .publish_with_reply(subject, self.inbox.clone(), request.to_string().into());
        sent.await.map_err(failed("asking for deliveries"))?;
        if self.outstanding == 0 {
            self.heard = Instant::now();
            self.has_come = false;
        }
        self.outstanding += batch;
        self.asked_for = self.expires;
        Ok(())
    }

    /// Requests nothing for a moment: there was no room for what came.
    pub(super) fn pause(&mut self) {
        self.not_before = Instant::now() + Duration::from_millis(250);
    }

    /// Returns the next answer. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Fetched {
        match self.answers.next().await {
            Some(message) => self.sort(message),
            // The client is gone for good.
            None => std::future::pending().await,
        }
    }

    fn sort(&mut self, message: Message) -> Fetched {
        self.heard = Instant::now();
        match message.status {
            None | Some(StatusCode::OK) => {
                self.outstanding = self.outstanding.saturating_sub(1);
                self.expires = BRIEF;
                self.has_come = true;
                self.is_unlimited = false;
                Fetched::Message(message)
            }
            Some(StatusCode::IDLE_HEARTBEAT) => Fetched::Nothing,
            Some(status) => self.ended(status, &message),
        }
    }

    /// Handles the end of a request.
    fn ended(&mut self, status: StatusCode, message: &Message) -> Fetched {
        let pending = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get(PENDING));
        let pending: Option<usize> = pending.and_then(|pending| pending.as_str().parse().ok());
        self.outstanding = self
            .outstanding
            .saturating_sub(pending.unwrap_or(self.outstanding));
        if status == StatusCode::TIMEOUT {
            self.expires = (self.expires * 2).min(LONG);
            return Fetched::Nothing;
        }
        let why = message.description.as_deref().unwrap_or_default();
        if why.contains(EXCEEDED) {
            self.is_unlimited = !self.has_come;
            return Fetched::Nothing;
        }
        if why.contains(COMPLETED) {
            return Fetched::Nothing;
        }
        tracing::debug!(stream = %self.stream, consumer = self.consumer, %status, why, "a request ended");
        self.pause();
        let is_deleted = why.contains("Consumer Deleted") || status == StatusCode::NO_RESPONDERS;
        if is_deleted {
            Fetched::Deleted
        } else {
            Fetched::Nothing
        }
    }

    /// Returns when a sign of life of the open request is overdue; `None` without a request.
    pub(crate) fn silent_at(&self) -> Option<Instant> {
        let promised = if self.asked_for >= HEARTBEAT * 2 {
            HEARTBEAT * 2
        } else {
            self.asked_for
        };
        (self.outstanding > 0).then(|| self.heard + promised + SILENCE)
    }

    /// Whether the open request ends by itself soon.
    pub(crate) fn is_brief(&self) -> bool {
        self.asked_for <= BRIEF
    }

    /// Whether messages of a request may still come.
    pub(crate) fn has_asked(&self) -> bool {
        self.outstanding > 0
    }

    /// Notes that a delivery of this stream was verified: it is not left alone any longer.
    pub(crate) fn note_known(&mut self) {
        self.keys.note_known();
        self.rests_until = Instant::now();
    }

    /// Notes a delivery that could not be verified. Returns whether nothing of this stream can be,
    /// and it is not left alone yet.
    pub(crate) fn note_unknown(&mut self) -> bool {
        self.keys.note_unknown();
        self.keys.are_all() && self.rests_until <= Instant::now()
    }

    /// Requests nothing before `until`, unless a delivery is verified meanwhile.
    pub(crate) fn rest(&mut self, until: Instant) {
        self.rests_until = until;
    }

    /// Returns the earliest time of the next request.
    pub(crate) fn not_before(&self) -> Instant {
        self.not_before.max(self.rests_until)
    }

    /// Begins again with another inbox: answers to earlier requests reach nobody. Returns the
    /// messages that had already come.
    pub(crate) async fn reset(
        &mut self,
        link: &NatsConnection,
    ) -> Result<Vec<Message>, QueueError> {
        let (inbox, answers) = listen(link).await?;
        let mut before = std::mem::replace(&mut self.answers, answers);
        self.inbox = inbox;
        self.not_before = Instant::now();
        let mut rest = Vec::new();
        while let Some(Some(message)) = before.next().now_or_never() {
            if let Fetched::Message(message) = self.sort(message) {
                rest.push(message);
            }
        }
        self.outstanding = 0;
        Ok(rest)
    }

    /// Waits for the end of the open request, or cancels it by no longer listening: the server
    /// sends nothing to an inbox without a listener. Returns the messages that came meanwhile.
    /// After that, nothing comes until [`PullConsumer::reset`].
    pub(crate) async fn wind_down(&mut self) -> Vec<Message> {
        let mut rest = Vec::new();
        while self.outstanding > 0 && self.is_brief() {
            match tokio::time::timeout(BRIEF + SILENCE, self.next()).await {
                Ok(Fetched::Message(message)) => rest.push(message),
                Ok(_) => {}
                Err(_) => return rest,
            }
        }
        if self.outstanding > 0 && self.answers.drain().await.is_ok() {
            let draining = async {
                while let Some(message) = self.answers.next().await {
                    if matches!(message.status, None | Some(StatusCode::OK)) {
                        rest.push(message);
                    }
                }
            };
            let _ = tokio::time::timeout(DRAINED_WITHIN, draining).await;
            self.outstanding = 0;
        }
        rest
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

async fn listen(link: &NatsConnection) -> Result<(Subject, Subscriber), QueueError> {
    let inbox: Subject = link.client.new_inbox().into();
    let answers = link
        .client
        .subscribe(inbox.clone())
        .await
        .map_err(failed("listening for deliveries"))?;
    Ok((inbox, answers))
}
