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

/// How long the server keeps a request. There is no way to take one back, and
/// what is sent to nobody counts as an attempt that died: so stopping waits for
/// the last request's end, and that must be soon.
const EXPIRES: Duration = Duration::from_secs(1);

/// After so much silence a request is not believed to be there any more.
const SILENCE: Duration = Duration::from_secs(3);

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
    pub(crate) stream: &'static str,
    consumer: String,
    answers: Subscriber,
    inbox: Subject,
    /// Messages asked for that have not come.
    outstanding: usize,
    heard: Instant,
    /// Not asked again before this: whatever refused would refuse again.
    not_before: Instant,
}

impl Source {
    pub(crate) async fn open(link: &Link, stream: &'static str, consumer: &str) -> Result<Self, QueueError> {
        let (inbox, answers) = listen(link).await?;
        let (consumer, now) = (consumer.to_owned(), Instant::now());
        Ok(Self { stream, consumer, answers, inbox, outstanding: 0, heard: now, not_before: now })
    }

    /// Sees to it that about `wanted` messages are on their way. Small top-ups
    /// wait: a request costs as much as a message.
    pub(crate) async fn ask(&mut self, link: &Link, wanted: usize) -> Result<(), QueueError> {
        if !link.is_connected() || self.outstanding * 2 >= wanted || Instant::now() < self.not_before {
            return Ok(());
        }
        let batch = wanted - self.outstanding;
        let request = json!({
            "batch": batch,
            "expires": u64::try_from(EXPIRES.as_nanos()).unwrap_or(u64::MAX),
        });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.consumer);
        let sent = link.client.publish_with_reply(subject, self.inbox.clone(), request.to_string().into());
        sent.await.map_err(failed("asking for deliveries"))?;
        if self.outstanding == 0 {
            self.heard = Instant::now();
        }
        self.outstanding += batch;
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
            return Came::Nothing;
        }
        let why = message.description.as_deref().unwrap_or_default();
        tracing::debug!(stream = self.stream, consumer = self.consumer, %status, why, "a request ended");
        self.not_before = Instant::now() + Duration::from_millis(250);
        let is_deleted = why.contains("Consumer Deleted") || status == StatusCode::NO_RESPONDERS;
        if is_deleted { Came::Deleted } else { Came::Nothing }
    }

    /// Whether it should have been heard of.
    pub(crate) fn is_silent(&self) -> bool {
        self.outstanding > 0 && self.heard.elapsed() > SILENCE
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

    /// Waits for the end of what was asked, and returns what came of it.
    pub(crate) async fn wind_down(&mut self) -> Vec<Message> {
        let mut rest = Vec::new();
        while self.outstanding > 0 {
            match tokio::time::timeout(SILENCE, self.next()).await {
                Ok(Came::Message(message)) => rest.push(message),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        rest
    }
}

async fn listen(link: &Link) -> Result<(Subject, Subscriber), QueueError> {
    let inbox: Subject = link.client.new_inbox().into();
    let answers = link.client.subscribe(inbox.clone()).await.map_err(failed("listening for deliveries"))?;
    Ok((inbox, answers))
}
