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
    if done.is_some_and(|done| is_done(done, every, now)) {
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

/// Whether what was `done` at that time need not be done again yet. A time that has not come was
/// written while a server's clock was wrong, and says nothing.
fn is_done(done: Timestamp, every: Duration, now: Timestamp) -> bool {
    let Some(age) = age(done, now) else {
        return false;
    };
    // A little early, so that a process that asks each `every` does not miss every other time.
    age < every.mul_f32(0.9)
}

/// Largest difference between the servers' clocks that is nobody's fault.
const APART: Duration = Duration::from_secs(10);

/// How long ago something was, as the servers tell the time; `None` if it is to come.
pub(crate) fn age(then: Timestamp, now: Timestamp) -> Option<Duration> {
    let apart = now.saturating_add(APART).unwrap_or(Timestamp::MAX);
    (then <= apart).then(|| Duration::try_from(now.duration_since(then)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_has_not_come_says_nothing() {
        let every = Duration::from_secs(30);
        let at = |second: i64| Timestamp::from_second(1_800_000_000 + second).unwrap();
        for (done, is_done_then) in [
            (0, true),
            (-26, true),
            (-27, false),
            (-86_400, false),
            // The leader's clock differs a little from another server's.
            (5, true),
            (11, false),
            (86_400, false),
        ] {
            assert_eq!(is_done(at(done), every, at(0)), is_done_then, "{done} s");
        }
        assert_eq!(
            age(Timestamp::MIN, Timestamp::MAX),
            age(at(0), at(0))
                .map(
                    |_| Duration::try_from(Timestamp::MAX.duration_since(Timestamp::MIN)).unwrap()
                )
        );
        assert_eq!(age(Timestamp::MAX, at(0)), None);
    }
}
