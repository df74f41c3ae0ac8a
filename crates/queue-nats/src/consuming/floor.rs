//! The position up to which a route has settled everything, stored as a fact as well: a consumer
//! that is made again after somebody deleted it goes on there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::Info;
use queue::{Position, QueueError};
use serde::{Deserialize, Serialize};
use serde_json::json;
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

/// The last floor that was stored, and when that was last tried.
#[derive(Debug, Default)]
pub(crate) struct SettledFloor(Arc<Mutex<NotedFloor>>);

#[derive(Debug, Default)]
struct NotedFloor {
    stored: Option<Position>,
    tried: Option<Instant>,
}

impl SettledFloor {
    /// Stores `settled`, if that is due or it is the last chance. Nobody waits for it: a server
    /// that does not answer must not keep deliveries waiting.
    pub(crate) fn note(&self, shared: &Arc<Shared>, route: &str, settled: Position, is_last: bool) {
        let Some(epoch) = shared.monitor.known_epoch() else {
            return;
        };
        if !self.begin(settled, is_last) {
            return;
        }
        let body = serde_json::to_vec(&Note { epoch, settled }).unwrap_or_default();
        let noted = Arc::clone(&self.0);
        let route = route.to_owned();
        let publisher = shared.publisher.clone();
        shared.tasks.spawn(async move {
            let stored = publisher
                .put_bounded(name(&route).1, HeaderMap::new(), body.into())
                .await;
            match stored {
                Ok(()) => lock(&noted).stored = Some(settled),
                Err(error) => {
                    tracing::debug!(route, %error, "how far a route is was not noted, this time")
                }
            }
        });
    }

    /// Whether to store `settled` now, which then counts as tried.
    fn begin(&self, settled: Position, is_last: bool) -> bool {
        let mut noted = lock(&self.0);
        let is_due = noted.tried.is_none_or(|at| at.elapsed() >= NOTED_EVERY);
        let begins = noted.stored != Some(settled) && (is_due || is_last);
        if begins {
            noted.tried = Some(Instant::now());
        }
        begins
    }
}

fn lock(noted: &Mutex<NotedFloor>) -> MutexGuard<'_, NotedFloor> {
    noted.lock().unwrap_or_else(PoisonError::into_inner)
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

/// The routes of which it was noted how far they were.
pub(crate) async fn noted_routes(link: &NatsConnection) -> Result<Vec<String>, QueueError> {
    const LISTING: &str = "listing how far routes were";
    let (stream, subjects) = name("*");
    let begin = name("").1;
    let stored = match api::subjects(link, stream, &subjects).await {
        Err(error) if error.is_missing() => Vec::new(),
        stored => stored.map_err(|error| error.of(LISTING))?,
    };
    let route = |(subject, _): &(String, u64)| subject.strip_prefix(&begin).map(str::to_owned);
    Ok(stored.iter().filter_map(route).collect())
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
