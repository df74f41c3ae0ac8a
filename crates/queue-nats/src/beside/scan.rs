//! Reading a stream through, by a consumer that is made for it and forgotten.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use event_model::Timestamp;
use futures::StreamExt;
use queue::QueueError;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::api;
use crate::connect::{Link, REQUEST};
use crate::failure::failed;

const READING: &str = "reading a stream";

/// Messages asked for at once: many of those that are small.
const BATCH: u64 = 512;
const BATCH_OF_HEADERS: u64 = 8192;

/// The server forgets the consumer when nobody has asked for so long.
const FORGET_AFTER: Duration = Duration::from_secs(30);

/// In a cluster a consumer may be made before every server knows where it is: how often
/// it is asked again, and how soon.
const UNKNOWN: u32 = 40;
const AGAIN: Duration = Duration::from_millis(50);

/// Which messages.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub(crate) stream: &'static str,
    pub(crate) subject: String,
    /// The first sequence.
    pub(crate) from: u64,
    /// Or, instead, stored then or later.
    pub(crate) since: Option<Timestamp>,
    pub(crate) headers_only: bool,
}

/// One stored message.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Scan {
    /// Every message there is now, in order, to `each`, until it says stop. The last one
    /// that it got.
    pub(crate) async fn each(
        &self,
        link: &Link,
        mut each: impl FnMut(Stored) -> bool,
    ) -> Result<u64, QueueError> {
        let name = format!("scan-{:016x}", fastrand::u64(..));
        let info = api::put_scan(link, self.stream, &name, &self.config(&name), self.since).await;
        let mut left = info.map_err(|error| error.of(READING))?.num_pending;
        let inbox = link.client.new_inbox();
        let mut answers = link.client.subscribe(inbox.clone()).await.map_err(failed(READING))?;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{name}", self.stream);
        let (mut unknown, mut last) = (0, 0);
        'reading: while left > 0 {
            let batch = left.min(if self.headers_only { BATCH_OF_HEADERS } else { BATCH });
            let request = json!({ "batch": batch, "expires": 2_000_000_000_u64 }).to_string();
            let asked = link.client.publish_with_reply(subject.clone(), inbox.clone(), request.into()).await;
            asked.map_err(failed(READING))?;
            for _ in 0..batch {
                let answer = timeout(REQUEST, answers.next()).await;
                let message = answer
                    .ok()
                    .flatten()
                    .ok_or_else(|| QueueError::unavailable(READING, "no answer in time"))?;
                if message.status == Some(StatusCode::NO_RESPONDERS) && unknown < UNKNOWN {
                    unknown += 1;
                    sleep(AGAIN).await;
                    continue 'reading;
                }
                let Some(stored) = stored(message)? else { continue 'reading };
                (left, last) = (left - 1, stored.sequence);
                if !each(stored) {
                    break 'reading;
                }
            }
        }
        let _ = api::delete_consumer(link, self.stream, &name).await;
        Ok(last)
    }

    fn config(&self, name: &str) -> pull::Config {
        pull::Config {
            name: Some(name.to_owned()),
            filter_subject: self.subject.clone(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.from.max(1) },
            ack_policy: AckPolicy::None,
            headers_only: self.headers_only,
            inactive_threshold: FORGET_AFTER,
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        }
    }
}

/// `None` at the end of a request.
fn stored(message: Message) -> Result<Option<Stored>, QueueError> {
    match message.status {
        None | Some(StatusCode::OK) => {}
        Some(StatusCode::TIMEOUT) => return Ok(None),
        Some(status) => return Err(QueueError::unavailable(READING, format!("the server said {status}"))),
    }
    let reply = message.reply.as_ref().map(async_nats::Subject::as_str).unwrap_or_default();
    let tokens: Vec<&str> = reply.split('.').collect();
    let at = if tokens.len() >= 11 { 7 } else { 5 };
    let sequence = tokens.get(at).and_then(|token| token.parse().ok()).unwrap_or(0);
    Ok(Some(Stored {
        sequence,
        subject: message.subject.to_string(),
        headers: message.headers.unwrap_or_default(),
        body: message.payload,
    }))
}
