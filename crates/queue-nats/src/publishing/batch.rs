//! Atomic batches (ADR-50): many messages, one decision, one answer.
//! <https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md>

use async_nats::HeaderMap;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use event_model::Event;
use tokio::time::timeout;

use crate::connect::{NatsConnection, REQUEST};
use crate::message;
use crate::publishing::PublishedAt;

/// Least events of a batch: from here on it costs less than its messages one by one; decision
/// 0009 has the figures.
const LEAST: usize = 64;

/// Most events and bytes of a batch: far below the server's 1,000, so that a batch is never too
/// large for its buffers.
const MOST: usize = 256;
const MOST_BYTES: usize = 4 << 20;

/// Returns how many of `events` make one batch; 0 if they are too few.
pub(crate) fn fitting(events: &[Event]) -> usize {
    let mut bytes = 0;
    let fits = |event: &&Event| {
        bytes += event.body().len();
        bytes <= MOST_BYTES
    };
    let count = events.iter().take(MOST).take_while(fits).count();
    if count < LEAST { 0 } else { count }
}

/// Stores all of `events`, in order, or none. Returns `None` if the server refused or did not
/// answer: one known event makes it refuse the whole batch, and what is then published one by one
/// is stored once.
pub(crate) async fn publish(link: &NatsConnection, events: &[Event]) -> Option<Vec<PublishedAt>> {
    let answer = timeout(REQUEST * 2, send(link, events))
        .await
        .ok()
        .flatten()?;
    let count = events.len() as u64;
    let last = answer.sequence;
    // With another number, the positions would not be those of our events.
    let first = (last + 1)
        .checked_sub(count)
        .filter(|_| answer.batch_size == Some(count))?;
    Some(
        (first..=last)
            .map(|sequence| PublishedAt {
                sequence,
                is_duplicate: false,
            })
            .collect(),
    )
}

async fn send(link: &NatsConnection, events: &[Event]) -> Option<PublishAck> {
    let batch = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let headers = |number: usize, event: &Event| -> HeaderMap {
        let mut headers = message::headers_with_id(event, event.id().to_string());
        headers.insert("Nats-Batch-Id", batch.as_str());
        headers.insert("Nats-Batch-Sequence", (number + 1).to_string());
        headers
    };
    let (last, before) = events.split_last()?;
    let client = &link.client;
    for (number, event) in before.iter().enumerate() {
        let sent = client.publish_with_headers(
            event.subject(),
            headers(number, event),
            event.body().clone(),
        );
        sent.await.ok()?;
    }
    let mut commit = headers(before.len(), last);
    commit.insert("Nats-Batch-Commit", "1");
    let answer = client
        .request_with_headers(last.subject(), commit, last.body().clone())
        .await
        .ok()?;
    match serde_json::from_slice(&answer.payload).ok()? {
        Response::Ok(ack) => Some(ack),
        Response::Err { error } => {
            tracing::debug!(%error, "a batch was refused: its events are published one by one");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_events_are_no_batch_and_many_are_several() {
        let events = |count: usize| vec![queue::conformance::event("E", "e"); count];
        for (count, expected) in [(0, 0), (63, 0), (64, 64), (256, 256), (1000, 256)] {
            assert_eq!(fitting(&events(count)), expected);
        }
    }
}
