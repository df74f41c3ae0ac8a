//! One durable pull consumer on the server, and what was asked of it.
//! Requests and their answers as in ADR-37.

use std::time::Duration;

use async_nats::{Message, StatusCode, Subject, Subscriber};
use futures::{FutureExt, StreamExt};
use queue::QueueError;
use serde_json::json;
use tokio::time::Instant;

use crate::connect::Link;
use crate::failure::failed;
use crate::streams::StreamName;

/// How long the server keeps a request of a route that has something to do. There is no
/// way to take one back: stopping waits for its end.
const BRIEF: Duration = Duration::from_secs(1);

/// How long it keeps one of a route for which nothing comes: asking again costs the
/// servers something in every process and route. Each that ends empty doubles it up to
/// here. Such a request is given up by listening no more; what is sent in that moment
/// comes by its lease.
const LONG: Duration = Duration::from_secs(30);

/// How often the server says that a long request is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// After so much silence beyond what was promised a request is not believed to be there
/// any more: it was lost with a leader.
const SILENCE: Duration = Duration::from_secs(2);

/// How long what is on its way may take, after nothing is asked for any more.
const DRAINED_WITHIN: Duration = Duration::from_secs(3);

/// Tells how many messages of a request will not come.
const PENDING: &str = "Nats-Pending-Messages";

/// What came out of a source.
#[derive(Debug)]
pub(crate) enum Came {
    /// A message to deliver.
    Message(Message),
    /// Something for the source alone.
    Nothing,
    /// There is no such consumer any more.
    Deleted,
}

/// One consumer.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) stream: StreamName,
    consumer: String,
    answers: Subscriber,
    inbox: Subject,
    /// Messages asked for that have not come.
    outstanding: usize,
    /// How long the server keeps the next request, and kept the last.
    expires: Duration,
    asked_for: Duration,
    heard: Instant,
    /// Not asked again before this: whatever refused would refuse again.
    not_before: Instant,
}

impl Source {
    pub(crate) async fn open(link: &Link, stream: StreamName, consumer: &str) -> Result<Self, QueueError> {
        let (inbox, answers) = listen(link).await?;
        let (consumer, now) = (consumer.to_owned(), Instant::now());
        Ok(Self {
            stream,
            consumer,
            answers,
            inbox,
            outstanding: 0,
            expires: BRIEF,
            asked_for: BRIEF,
            heard: now,
            not_before: now,
        })
    }

    /// Sees to it that about `wanted` messages are on their way. Small top-ups
    /// wait: a request costs as much as a message.
    pub(crate) async fn ask(&mut self, link: &Link, wanted: usize) -> Result<(), QueueError> {
        if !link.is_connected() || self.outstanding * 2 >= wanted || Instant::now() < self.not_before {
            return Ok(());
        }
        let batch = wanted - self.outstanding;
        let mut request = json!({ "batch": batch, "expires": nanos(self.expires) });
        if self.expires >= HEARTBEAT * 2 {
            request["idle_heartbeat"] = nanos(HEARTBEAT).into();
        }
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.consumer);
        let sent = link.client.publish_with_reply(subject, self.inbox.clone(), request.to_string().into());
        sent.await.map_err(failed("asking for deliveries"))?;
        if self.outstanding == 0 {
            self.heard = Instant::now();
        }
        self.outstanding += batch;
        self.asked_for = self.expires;
        Ok(())
    }

    /// The next answer. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Came {
        match self.answers.next().await {
            Some(message) => self.sort(message),
            // The client is gone for good.
            None => std::future::pending().await,
        }
    }

    fn sort(&mut self, message: Message) -> Came {
        self.heard = Instant::now();
        match message.status {
            None | Some(StatusCode::OK) => {
                self.outstanding = self.outstanding.saturating_sub(1);
                self.expires = BRIEF;
                Came::Message(message)
            }
            Some(StatusCode::IDLE_HEARTBEAT) => Came::Nothing,
            Some(status) => self.ended(status, &message),
        }
    }

    /// A request came to its end.
    fn ended(&mut self, status: StatusCode, message: &Message) -> Came {
        let pending = message.headers.as_ref().and_then(|headers| headers.get(PENDING));
        let pending: Option<usize> = pending.and_then(|pending| pending.as_str().parse().ok());
        self.outstanding = self.outstanding.saturating_sub(pending.unwrap_or(self.outstanding));
        if status == StatusCode::TIMEOUT {
            self.expires = (self.expires * 2).min(LONG);
            return Came::Nothing;
        }
        let why = message.description.as_deref().unwrap_or_default();
        tracing::debug!(stream = %self.stream, consumer = self.consumer, %status, why, "a request ended");
        self.not_before = Instant::now() + Duration::from_millis(250);
        let is_deleted = why.contains("Consumer Deleted") || status == StatusCode::NO_RESPONDERS;
        if is_deleted { Came::Deleted } else { Came::Nothing }
    }

    /// When it should have been heard of, if anything was asked.
    pub(crate) fn silent_at(&self) -> Option<Instant> {
        let promised = if self.asked_for >= HEARTBEAT * 2 { HEARTBEAT * 2 } else { self.asked_for };
        (self.outstanding > 0).then(|| self.heard + promised + SILENCE)
    }

    /// Whether what was asked ends by itself soon.
    pub(crate) fn is_brief(&self) -> bool {
        self.asked_for <= BRIEF
    }

    /// Whether anything was asked that may still come.
    pub(crate) fn has_asked(&self) -> bool {
        self.outstanding > 0
    }

    /// Is not asked again before `until`.
    pub(crate) fn rest(&mut self, until: Instant) {
        self.not_before = self.not_before.max(until);
    }

    /// When it may be asked again.
    pub(crate) fn not_before(&self) -> Instant {
        self.not_before
    }

    /// Begins anew, on another inbox: what was asked before finds nobody.
    /// Returns what had already come.
    pub(crate) async fn reset(&mut self, link: &Link) -> Result<Vec<Message>, QueueError> {
        let (inbox, answers) = listen(link).await?;
        let mut before = std::mem::replace(&mut self.answers, answers);
        self.inbox = inbox;
        self.not_before = Instant::now();
        let mut rest = Vec::new();
        while let Some(Some(message)) = before.next().now_or_never() {
            if let Came::Message(message) = self.sort(message) {
                rest.push(message);
            }
        }
        self.outstanding = 0;
        Ok(rest)
    }

    /// Waits for the end of what was asked, or gives it up by listening no more: the server
    /// sends to nobody who does not listen. Returns what came of it. After that, nothing
    /// comes until [`Source::reset`].
    pub(crate) async fn wind_down(&mut self) -> Vec<Message> {
        let mut rest = Vec::new();
        while self.outstanding > 0 && self.is_brief() {
            match tokio::time::timeout(BRIEF + SILENCE, self.next()).await {
                Ok(Came::Message(message)) => rest.push(message),
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

async fn listen(link: &Link) -> Result<(Subject, Subscriber), QueueError> {
    let inbox: Subject = link.client.new_inbox().into();
    let answers = link.client.subscribe(inbox.clone()).await.map_err(failed("listening for deliveries"))?;
    Ok((inbox, answers))
}
