//! Duties that one of all processes does at a time, by a fact that says when each was last done.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use event_model::Timestamp;

use crate::api;
use crate::names::mark;
use crate::shared::Shared;

/// Removal of events that are settled and old enough.
pub(crate) const RETENTION: &str = "retention";

/// A look at the states of the routes, for everybody's metrics.
pub(crate) const ROUTES: &str = "routes";

/// Whether this process is to do `duty` now, which is due each `every`: nobody has done it since,
/// and no other process claimed it first. If that can't be told, every process does it: twice is
/// better than never.
pub(crate) async fn claim(shared: &Shared, duty: &str, every: Duration) -> bool {
    let (stream, name) = mark(&format!("duty.{duty}"));
    let Ok(found) = api::last_message(&shared.link, stream, &name).await else {
        return true;
    };
    let now = shared.monitor.servers_now();
    let done = found
        .as_ref()
        .and_then(|found| std::str::from_utf8(&found.payload).ok()?.parse().ok());
    // A little early, so that a process that asks each `every` does not miss every other time.
    let is_done = |done: Timestamp| now < done.checked_add(every.mul_f32(0.9)).unwrap_or(done);
    if done.is_some_and(is_done) {
        return false;
    }
    let version = found.map_or(0, |found| found.sequence);
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, version.to_string());
    let body = now.to_string();
    shared
        .publisher
        .put_if(name, headers, body.into())
        .await
        .unwrap_or(true)
}
