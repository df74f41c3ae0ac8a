//! Up to where a route has settled everything, noted beside its consumer: one that is made
//! again after somebody deleted it goes on there.

use async_nats::HeaderMap;
use queue::QueueError;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::Instant;

use crate::api;
use crate::connect::Link;
use crate::names::{EVENTS, mark};
use crate::shared::Shared;

/// How often a floor is noted that moves. What is settled after that comes again.
const NOTED_EVERY: Duration = Duration::from_mins(1);

/// The note. Other programs may read it: names are a public format.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// The life of the stream in which it counts.
    epoch: String,
    settled: u64,
}

/// What was last noted, and when.
#[derive(Debug, Default)]
pub(crate) struct Floor(Option<(u64, Instant)>);

impl Floor {
    /// Notes `settled`, if that is due or it is the last chance.
    pub(crate) async fn note(&mut self, shared: &Shared, route: &str, settled: u64, is_last: bool) {
        let is_noted =
            self.0.is_some_and(|(noted, at)| noted == settled || (!is_last && at.elapsed() < NOTED_EVERY));
        let Some(epoch) = shared.standing.known_epoch().filter(|_| !is_noted) else { return };
        let body = serde_json::to_vec(&Note { epoch, settled }).unwrap_or_default();
        let noted = shared.publisher.put_aside(name(route).1, HeaderMap::new(), body.into()).await;
        match noted {
            Ok(()) => self.0 = Some((settled, Instant::now())),
            Err(error) => tracing::debug!(route, %error, "how far a route is was not noted, this time"),
        }
    }
}

/// Up to where `route` had settled everything, as far as it was noted in this life of the
/// stream of events.
pub(crate) async fn read(link: &Link, route: &str) -> Result<Option<u64>, QueueError> {
    const READING: &str = "reading how far a route was";
    let (stream, subject) = name(route);
    let found = match api::last_message(link, stream, &subject).await {
        Err(error) if error.is_missing() => None,
        found => found.map_err(|error| error.of(READING))?,
    };
    let note = found.and_then(|found| serde_json::from_slice::<Note>(&found.payload).ok());
    let Some(note) = note else { return Ok(None) };
    let info = api::stream_info(link, EVENTS).await.map_err(|error| error.of(READING))?;
    let is_same = info.created.unix_timestamp_nanos().to_string() == note.epoch;
    Ok(is_same.then_some(note.settled).filter(|settled| *settled <= info.state.last_sequence))
}

fn name(route: &str) -> (&'static str, String) {
    mark(&format!("route.{route}"))
}
