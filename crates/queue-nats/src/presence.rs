//! Publishing events that may be known already: the server knows ids also of messages that it has
//! lost.

use event_model::{Event, EventId};
use queue::{Position, Presence, QueueError, Receipt};

use crate::api;
use crate::message::{self, text};
use crate::names::HEADER_ID;
use crate::shared::Shared;
use crate::streams::{Shard, event_at};

/// Number of copies in a row that may be lost as well, before none is looked for any more.
const LOST_IN_A_ROW: usize = 8;

const READING_BACK: &str = "reading an event back";

impl Shared {
    /// Stores an event. If the server says that it has it, the stored message is looked for: if
    /// it is missing, the event is stored again, and is no duplicate. Its message id then names
    /// what was lost, so that all who find the same loss store it once.
    pub(crate) async fn publish_unless_present(
        &self,
        event: &Event,
    ) -> Result<Receipt, QueueError> {
        let epoch = self.monitor.epoch().await?;
        let mut receipt = self.publisher.publish_one(event, &epoch).await?;
        let refed = event.clone().republished();
        for _ in 0..LOST_IN_A_ROW {
            if !receipt.duplicate
                || self.presence_of(receipt.position, event.id()).await? != Presence::Missing
            {
                return Ok(receipt);
            }
            let id = format!("{}/lost/{}", event.id(), receipt.position);
            let headers = message::headers_with_id(&refed, id);
            let placed = self
                .publisher
                .put(event.subject(), headers, event.body().clone())
                .await?;
            receipt.position = Shard::ONLY.position(placed.sequence)?;
            receipt.duplicate = placed.is_duplicate;
        }
        self.publisher.republish(&refed, &epoch).await
    }

    /// Returns whether the event `id` is at `position`, was removed from there, or is missing.
    pub(crate) async fn presence_of(
        &self,
        position: Position,
        id: EventId,
    ) -> Result<Presence, QueueError> {
        let link = &self.link;
        let Some(shard) = Shard::of(position) else {
            return Ok(Presence::Missing);
        };
        let found = event_at(link, position).await;
        match found.map_err(|error| error.of(READING_BACK))? {
            Some(message)
                if text(&message.headers, HEADER_ID)
                    .is_some_and(|found| found == id.to_string()) =>
            {
                Ok(Presence::Present)
            }
            Some(_) => Ok(Presence::Missing),
            None => {
                let info = api::stream_info(link, shard.events()).await;
                let state = info.map_err(|error| error.of(READING_BACK))?.state;
                let is_before = position.sequence() < state.first_sequence;
                let was_there = position.sequence() <= state.last_sequence;
                Ok(if is_before && was_there {
                    Presence::Removed
                } else {
                    Presence::Missing
                })
            }
        }
    }

    /// Whether the message stored there is this event, complete: its id may be on a damaged body.
    pub(crate) async fn check_readable(
        &self,
        receipt: &Receipt,
        id: EventId,
    ) -> Result<bool, QueueError> {
        let found = event_at(&self.link, receipt.position).await;
        let found = found.map_err(|error| error.of(READING_BACK))?;
        let event =
            found.and_then(|message| message::event(&message.headers, message.payload).ok());
        Ok(event.is_some_and(|event| event.id() == id))
    }
}
