//! What one process of all does at a time, by a mark that says when it was last done.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use event_model::Timestamp;

use crate::api;
use crate::names::mark;
use crate::shared::Shared;

/// Removes what is settled and old enough.
pub(crate) const RETENTION: &str = "retention";

/// Looks at how routes stand, for everybody's metrics.
pub(crate) const ROUTES: &str = "routes";

/// Whether this process is to do `duty` now, which is done each `every`: nobody has since,
/// and nobody else was quicker to say so. Where that can't be told, everybody does it: twice
/// is better than never.
pub(crate) async fn is_due(shared: &Shared, duty: &str, every: Duration) -> bool {
    let (stream, name) = mark(&format!("duty.{duty}"));
    let Ok(found) = api::last_message(&shared.link, stream, &name).await else { return true };
    let now = shared.standing.servers_now();
    let done = found.as_ref().and_then(|found| std::str::from_utf8(&found.payload).ok()?.parse().ok());
    // A little early: whoever comes each `every` is not to miss every other time.
    let is_done = |done: Timestamp| now < done.checked_add(every.mul_f32(0.9)).unwrap_or(done);
    if done.is_some_and(is_done) {
        return false;
    }
    let version = found.map_or(0, |found| found.sequence);
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, version.to_string());
    let body = now.to_string();
    shared.publisher.put_if(name, headers, body.into()).await.unwrap_or(true)
}
