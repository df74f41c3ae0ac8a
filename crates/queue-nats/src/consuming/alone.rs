//! The mark of an attempt that runs with nothing beside it: if the process dies
//! now, this delivery did it.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::StreamMessage;
use queue::QueueError;
use serde_json::json;

use crate::api;
use crate::names::{ATTEMPTS, alone};
use crate::shared::{Origin, Shared};

/// Names one message of one consumer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'r> {
    pub(crate) route: &'r str,
    pub(crate) origin: Origin,
}

impl Place<'_> {
    fn subject(&self) -> String {
        alone(self.route, self.origin.stream, self.origin.sequence)
    }

    /// Writes that `attempt` runs alone, in this process.
    pub(crate) async fn mark(&self, shared: &Shared, attempt: u32) -> Result<(), QueueError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, format!("{}.{attempt}.{:x}", self.subject(), shared.instance));
        let mark = format!("{attempt} {:x}", shared.instance);
        shared.publisher.put(self.subject(), headers, mark.into()).await.map(drop)
    }

    /// The attempt that was last marked, by another process: this one lives, so
    /// it can't have died of it.
    pub(crate) async fn marked(&self, shared: &Shared) -> Result<Option<u32>, QueueError> {
        let request = json!({ "last_by_subj": self.subject() });
        let found = api::get_message(&shared.link, ATTEMPTS, &request).await;
        let found = found.map_err(|error| error.of("looking for the mark of an attempt"))?;
        let read = |message: StreamMessage| {
            let (attempt, instance) = std::str::from_utf8(&message.payload).ok()?.split_once(' ')?;
            let is_ours = u64::from_str_radix(instance, 16) == Ok(shared.instance);
            attempt.parse().ok().filter(|_| !is_ours)
        };
        Ok(found.and_then(read))
    }
}
