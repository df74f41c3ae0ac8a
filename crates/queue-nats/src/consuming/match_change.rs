//! How a route's consumer says with which match it was joined, and that this is about to change.

use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use event_model::Timestamp;
use queue::Route;

use crate::connect::NatsConnection;

/// Name of the metadata in which a consumer says with which match it was joined.
pub(crate) const FILTER: &str = "fluent-filter";

/// Name of the metadata that says with which match somebody is about to join: dispatchers that
/// serve the route with another match must hear of that before they settle anything by theirs.
pub(super) const JOINING_AS: &str = "fluent-filter-next";

/// Time for which a dispatcher that serves a route may believe that nobody has joined it since it
/// asked.
pub(super) const JOINED_FOR: Duration = Duration::from_secs(1);

/// Time for which a dispatcher that joins with another match waits, so that [`JOINED_FOR`] is
/// over everywhere.
pub(super) const HEARD_WITHIN: Duration = Duration::from_millis(1500);

/// Name of the metadata that says until when nobody may settle what the route does not match, by
/// the servers' clock in milliseconds: other matches change together with its own.
pub(super) const HELD_UNTIL: &str = "fluent-held-until";

/// Name of the metadata that says for which match it is held: processes with the same one change
/// it together, and others wait.
pub(super) const HELD_FOR: &str = "fluent-held-for";

/// Returns the match with which the last dispatcher has joined, or is about to.
pub(super) fn joined_as(info: &Info) -> Option<&String> {
    info.config
        .metadata
        .get(JOINING_AS)
        .or_else(|| info.config.metadata.get(FILTER))
}

/// Whether the last dispatcher to join did so with this match.
pub(super) fn is_joined_as(info: &Info, route: &Route) -> bool {
    joined_as(info) == Some(&route.filter.digest())
}

/// Returns until when nobody may settle what a route does not match.
pub(super) fn held_until(info: &Info) -> Option<Timestamp> {
    let until = info.config.metadata.get(HELD_UNTIL)?.parse().ok()?;
    Timestamp::from_millisecond(until).ok()
}

/// Returns until when a route is held for a match other than `next`, if it still is.
pub(super) fn held_by_others(info: &Info, next: &str, now: Timestamp) -> Option<Timestamp> {
    let is_for_next = info
        .config
        .metadata
        .get(HELD_FOR)
        .is_some_and(|held| held == next);
    held_until(info).filter(|until| *until > now && !is_for_next)
}

/// Tells the dispatchers that serve a route with another match than `next` that it changes. One
/// that does not hear of it will ask soon enough, or has no connection.
pub(super) async fn tell(link: &NatsConnection, info: &Info, next: &str) {
    let served = [info.config.metadata.get(FILTER), joined_as(info)];
    for digest in served
        .into_iter()
        .flatten()
        .filter(|digest| *digest != next)
    {
        let _ = link.say(present(link, &info.name, digest).into(), "").await;
    }
}

/// Returns the subject on which dispatchers that serve `route` with this match listen: below our
/// own inbox, where every dispatcher may.
pub(crate) fn present(link: &NatsConnection, route: &str, digest: &str) -> String {
    let inbox = link.client.new_inbox();
    let own = inbox
        .rsplit_once('.')
        .map_or(inbox.as_str(), |(own, _)| own);
    format!("{own}.present.{route}.{digest}")
}
