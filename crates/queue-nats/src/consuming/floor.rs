//! The position up to which a route has settled everything, stored as a fact as well: a consumer
//! that is made again after somebody deleted it goes on there.

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::Info;
use queue::{Position, QueueError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

use crate::api::{self, ApiError};
use crate::connect::NatsConnection;
use crate::names::mark;
use crate::shared::Shared;
use crate::streams::{Shard, StreamName};

/// Interval at which a moving floor is stored. What was settled after that is delivered again.
const NOTED_EVERY: Duration = Duration::from_mins(1);

/// The stored floor. Other programs may read it: names are a public format.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Epoch of the stream in which it counts.
    epoch: String,
    settled: Position,
}

/// The last floor that was stored, and when.
#[derive(Debug, Default)]
pub(crate) struct SettledFloor(Option<(Position, Instant)>);

impl SettledFloor {
    /// Stores `settled`, if that is due or it is the last chance.
    pub(crate) async fn note(
        &mut self,
        shared: &Shared,
        route: &str,
        settled: Position,
        is_last: bool,
    ) {
        let is_noted = self.0.is_some_and(|(noted, at)| {
            noted == settled || (!is_last && at.elapsed() < NOTED_EVERY)
        });
        let Some(epoch) = shared.monitor.known_epoch().filter(|_| !is_noted) else {
            return;
        };
        let body = serde_json::to_vec(&Note { epoch, settled }).unwrap_or_default();
        let noted = shared
            .publisher
            .put_bounded(name(route).1, HeaderMap::new(), body.into())
            .await;
        match noted {
            Ok(()) => self.0 = Some((settled, Instant::now())),
            Err(error) => {
                tracing::debug!(route, %error, "how far a route is was not noted, this time")
            }
        }
    }
}

/// Returns up to where a consumer of events has settled everything.
pub(super) fn settled(info: &Info) -> Option<Position> {
    Shard::ONLY.position(info.ack_floor.stream_sequence).ok()
}

/// Reads up to where `route` had settled everything, as far as that was stored in this epoch of
/// the stream of events.
pub(crate) async fn read(
    link: &NatsConnection,
    route: &str,
) -> Result<Option<Position>, QueueError> {
    const READING: &str = "reading how far a route was";
    let (stream, subject) = name(route);
    let found = match api::last_message(link, stream, &subject).await {
        Err(error) if error.is_missing() => None,
        found => found.map_err(|error| error.of(READING))?,
    };
    let note = found.and_then(|found| serde_json::from_slice::<Note>(&found.payload).ok());
    let Some(note) = note else { return Ok(None) };
    let info = api::stream_info(link, Shard::ONLY.events())
        .await
        .map_err(|error| error.of(READING))?;
    let is_same = info.created.unix_timestamp_nanos().to_string() == note.epoch;
    let last = Shard::ONLY.position(info.state.last_sequence)?;
    Ok(is_same
        .then_some(note.settled)
        .filter(|settled| *settled <= last))
}

/// Whether it was noted how far `route` was.
pub(crate) async fn is_noted(link: &NatsConnection, route: &str) -> Result<bool, ApiError> {
    let (stream, subject) = name(route);
    match api::last_message(link, stream, &subject).await {
        Err(error) if error.is_missing() => Ok(false),
        found => found.map(|found| found.is_some()),
    }
}

/// Forgets how far `route` was.
pub(crate) async fn forget(link: &NatsConnection, route: &str) -> Result<(), ApiError> {
    let (stream, subject) = name(route);
    match api::purge(link, stream, json!({ "filter": subject })).await {
        Err(error) if !error.is_missing() => Err(error),
        _ => Ok(()),
    }
}

fn name(route: &str) -> (StreamName, String) {
    mark(&format!("route.{route}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_has_a_string_and_one_of_an_earlier_version_a_number() {
        let settled = Shard::ONLY.position(17).unwrap();
        let old: Note = serde_json::from_str(r#"{"epoch":"e","settled":17}"#).unwrap();
        assert_eq!(old.settled, settled);
        let new = serde_json::to_string(&old).unwrap();
        assert_eq!(new, r#"{"epoch":"e","settled":"17"}"#);
        assert_eq!(serde_json::from_str::<Note>(&new).unwrap().settled, settled);
    }
}
