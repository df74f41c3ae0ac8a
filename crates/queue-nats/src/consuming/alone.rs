//! The mark of an attempt that runs with nothing beside it: if the process dies
//! now, this delivery did it.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use queue::QueueError;
use serde_json::json;

use crate::api;
use crate::connect::Link;
use crate::names::{ATTEMPTS, alone};
use crate::publishing::Publisher;
use crate::shared::Origin;

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

    /// Writes that `attempt` runs alone.
    pub(crate) async fn mark(&self, publisher: &Publisher, attempt: u32) -> Result<(), QueueError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, format!("{}.{attempt}", self.subject()));
        publisher.put(self.subject(), headers, attempt.to_string().into()).await.map(drop)
    }

    /// The attempt that was last marked.
    pub(crate) async fn marked(&self, link: &Link) -> Result<Option<u32>, QueueError> {
        let request = json!({ "last_by_subj": self.subject() });
        let found = api::get_message(link, ATTEMPTS, &request).await;
        let found = found.map_err(|error| error.of("looking for the mark of an attempt"))?;
        Ok(found.and_then(|message| std::str::from_utf8(&message.payload).ok()?.parse().ok()))
    }
}
