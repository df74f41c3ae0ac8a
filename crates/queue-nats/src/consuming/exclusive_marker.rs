//! The marker of an attempt that runs exclusively: if the process crashes while it stands, this
//! delivery caused the crash.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::message::StreamMessage;
use event_model::EventId;
use queue::QueueError;
use serde_json::json;

use crate::api;
use crate::names::alone;
use crate::shared::{Origin, Shared};
use crate::streams::ATTEMPTS;

/// Content that replaces a marker which was taken back.
const NOT_ALONE: &str = "accompanied";

/// Identifies one message of one consumer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ExclusiveMarker<'r> {
    pub(crate) route: &'r str,
    pub(crate) origin: Origin,
    /// In another epoch of the stream, the same sequence is another event.
    pub(crate) event: EventId,
}

impl ExclusiveMarker<'_> {
    fn subject(&self) -> String {
        alone(self.route, self.origin.stream, self.origin.sequence)
    }

    /// Writes that `attempt` runs exclusively in this process, or that it does not any more: the
    /// last message counts.
    pub(crate) async fn mark(
        &self,
        shared: &Shared,
        attempt: u32,
        is_alone: bool,
    ) -> Result<(), QueueError> {
        let mut headers = HeaderMap::new();
        let subject = self.subject();
        let instance = shared.instance;
        // Each marker counts, also one that has been written before and was replaced since.
        let unique = fastrand::u64(..);
        headers.insert(
            NATS_MESSAGE_ID,
            format!("{subject}.{attempt}.{instance:x}.{is_alone}.{unique:016x}"),
        );
        let mark = if is_alone {
            format!("{} {instance:x}", self.event)
        } else {
            NOT_ALONE.to_owned()
        };
        shared
            .publisher
            .put(subject, headers, mark.into())
            .await
            .map(drop)
    }

    /// Whether another process has marked an attempt of this message: the current process is
    /// alive, so the message can't have crashed it. The number of the attempt does not matter: a
    /// process may crash before it begins the attempt that the server has counted.
    pub(crate) async fn read(&self, shared: &Shared) -> Result<bool, QueueError> {
        let request = json!({ "last_by_subj": self.subject() });
        let found = api::get_message(&shared.link, ATTEMPTS, &request).await;
        let found = found.map_err(|error| error.of("looking for the mark of an attempt"))?;
        let is_others = |message: StreamMessage| {
            let (event, instance) = std::str::from_utf8(&message.payload)
                .ok()?
                .split_once(' ')?;
            let is_ours = u64::from_str_radix(instance, 16) == Ok(shared.instance);
            Some(event == self.event.to_string() && !is_ours)
        };
        Ok(found.and_then(is_others).unwrap_or(false))
    }
}
