//! Joining a route: makes its two consumers if they are missing.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, FromConsumer, Info, pull};
use event_model::Timestamp;
use queue::{Position, QueueError, Route, StartPosition};
use tokio::time::sleep;

use crate::api::{self, ApiError};
use crate::connect::NatsConnection;
use crate::consuming::filter::subjects;
use crate::consuming::floor;
use crate::consuming::match_change::{
    FILTER, HEARD_WITHIN, HELD_FOR, HELD_UNTIL, JOINING_AS, held_by_others, joined_as, tell,
};
use crate::message;
use crate::names::{EVENTS_SUBJECT, HEADER_REFED, HEADER_TIME};
use crate::shared::Shared;
use crate::stores::{Scan, Stored};
use crate::streams::{RETRIES, Shard, StreamName};

/// Most deliveries of one route in flight, over all dispatchers.
const MAX_IN_FLIGHT: i64 = 20_000;

/// Time after a stream was made in which it may hold what spools gave again: they do so as soon
/// as it is there, and dispatchers start soon after.
const GIVEN_AGAIN_FOR: Duration = Duration::from_hours(24);

/// Number of its first events that are searched for them.
const MOST_LOOKED_AT: u32 = 100_000;

pub(super) const JOINING: &str = "joining a route";

/// Makes or updates the consumers of `route`. `resume` says where to go on if its position was
/// lost.
///
/// A floor that was noted says where a route goes on that has lost its consumer of the events,
/// whether or not it has lost that of the retries too. A route without one that has a consumer of
/// the retries was seen before: the events are of a new stream, and all of them are for it.
pub(crate) async fn ensure_consumers(
    shared: &Shared,
    route: &Route,
    resume: Option<Position>,
    is_announced: bool,
) -> Result<(), QueueError> {
    let link = &shared.link;
    let filters = subjects(&route.filter);
    let mut wanted = config(&route.name, filters, route.lease);
    wanted
        .metadata
        .insert(FILTER.to_owned(), route.filter.digest());
    let was_seen = match api::consumer_info(link, RETRIES, &route.name).await {
        Ok(retries) => {
            // A pause outlasts the loss of one of the two consumers.
            wanted.pause_until = retries.config.pause_until;
            true
        }
        Err(error) if error.is_missing() => false,
        Err(error) => return Err(error.of(JOINING)),
    };
    let start = async || {
        let known = match resume {
            Some(position) => Some(position),
            None => floor::read(link, &route.name).await?,
        };
        match (known, route.start) {
            (Some(position), _) => Ok(behind(position)),
            (None, StartPosition::Now) if !was_seen && !check_sequence_reuse(link).await? => {
                Ok(DeliverPolicy::New)
            }
            (None, StartPosition::Now | StartPosition::Beginning) => Ok(DeliverPolicy::All),
        }
    };
    let events = put(shared, Shard::ONLY.events(), wanted, is_announced, start).await?;
    shared.note_route_epoch(&events);
    let due = crate::names::due(&route.name, ">");
    let mut wanted = config(&route.name, vec![due], route.lease);
    wanted.pause_until = events.config.pause_until;
    let start = async || Ok(DeliverPolicy::All);
    put(shared, RETRIES, wanted, true, start).await?;
    Ok(())
}

fn behind(position: Position) -> DeliverPolicy {
    DeliverPolicy::ByStartSequence {
        start_sequence: position.sequence() + 1,
    }
}

/// Whether the stream of events was recreated a short while ago, after it was lost, and gets
/// again what spools still have. A route that is unknown there was known before: "from now on"
/// would leave out events that were accepted. What was accepted before the stream was made shows
/// the same: spools send what the lost stream never had without a word that it was given again.
async fn check_sequence_reuse(link: &NatsConnection) -> Result<bool, QueueError> {
    let (info, now) = api::stream_info_at(link, Shard::ONLY.events())
        .await
        .map_err(|error| error.of(JOINING))?;
    let created = info.created.unix_timestamp_nanos();
    let age = now.map(|now| now.as_nanosecond() - created);
    if age.is_none_or(|age| age > i128::try_from(GIVEN_AGAIN_FOR.as_nanos()).unwrap_or(i128::MAX)) {
        return Ok(false);
    }
    let subject = EVENTS_SUBJECT.to_owned();
    let scan = Scan {
        stream: Shard::ONLY.events(),
        subject,
        from: 1,
        since: None,
        headers_only: true,
    };
    let mut looked_at = 0;
    let mut is_given_again = false;
    let look = |stored: Stored| {
        looked_at += 1;
        let accepted = message::parsed::<Timestamp>(&stored.headers, HEADER_TIME);
        let is_older = accepted.is_ok_and(|at| at.as_nanosecond() < created);
        is_given_again = is_older || message::text(&stored.headers, HEADER_REFED).is_some();
        !is_given_again && looked_at < MOST_LOOKED_AT
    };
    scan.each_without_removing(link, look).await?;
    Ok(is_given_again)
}

/// Announces that the match of a route is about to change, and waits until the dispatchers that
/// serve it have heard. It also waits if there seem to be none: one that requests nothing now may
/// do so at any moment, and settle by what it read a moment ago.
async fn announce(
    link: &NatsConnection,
    wanted: &pull::Config,
    info: &Info,
) -> Result<(), ApiError> {
    let next = wanted.metadata.get(FILTER);
    // Nobody serves it with another match, or is about to.
    let is_joined = info.config.metadata.get(FILTER) == next && joined_as(info) == next;
    let (Some(next), false) = (next, is_joined) else {
        return Ok(());
    };
    let mut announced =
        pull::Config::try_from_consumer_config(info.config.clone()).map_err(ApiError::NoAnswer)?;
    announced
        .metadata
        .insert(JOINING_AS.to_owned(), next.clone());
    if joined_as(info) != Some(next) {
        api::put_consumer(link, Shard::ONLY.events(), &info.name, &announced).await?;
    }
    tell(link, info, next).await;
    sleep(HEARD_WITHIN).await;
    Ok(())
}

fn config(name: &str, filter_subjects: Vec<String>, lease: Duration) -> pull::Config {
    pull::Config {
        durable_name: Some(name.to_owned()),
        name: Some(name.to_owned()),
        filter_subjects,
        ack_policy: AckPolicy::Explicit,
        ack_wait: lease,
        // Retries are not redeliveries: only a process that crashed causes one, and a delivery
        // that crashes a process exclusively becomes a dead letter. If the server gave up
        // silently, an event would be lost.
        max_deliver: -1,
        max_ack_pending: MAX_IN_FLIGHT,
        ..pull::Config::default()
    }
}

/// Makes a consumer, or updates an existing one. Where a route starts is decided when it is first
/// seen; everything else follows the settings. Fails while somebody changes the route's match
/// together with others.
async fn put(
    shared: &Shared,
    stream: StreamName,
    mut wanted: pull::Config,
    is_announced: bool,
    start: impl AsyncFnOnce() -> Result<DeliverPolicy, QueueError>,
) -> Result<Info, QueueError> {
    let link = &shared.link;
    let name = wanted.durable_name.clone().unwrap_or_default();
    let info = match api::consumer_info(link, stream, &name).await {
        Ok(info) => {
            wanted.deliver_policy = info.config.deliver_policy;
            // Pausing is a person's decision, and not part of the settings.
            wanted.pause_until = info.config.pause_until;
            if differs(&wanted, &info).is_none() {
                Ok(info)
            } else {
                // Somebody else may have joined or announced since this route was announced.
                let stands = is_announced && joined_as(&info) == wanted.metadata.get(FILTER);
                if !stands {
                    let next = wanted.metadata.get(FILTER).map_or("", String::as_str);
                    if held_by_others(&info, next, shared.monitor.servers_now()).is_some() {
                        let why = format!("the match of route {name} changes together with others");
                        return Err(QueueError::unavailable(JOINING, why));
                    }
                    announce(link, &wanted, &info)
                        .await
                        .map_err(|error| error.of(JOINING))?;
                }
                let changed = api::put_consumer(link, stream, &name, &wanted).await;
                if changed.is_ok() {
                    say_what_is_passed_over(&wanted, &info);
                }
                changed
            }
        }
        Err(error) if error.is_missing() => {
            wanted.deliver_policy = start().await?;
            api::put_consumer(link, stream, &name, &wanted).await
        }
        Err(error) => Err(error),
    };
    let info = info.map_err(|error| error.of(JOINING))?;
    match differs(&wanted, &info) {
        // Old servers ignore what they do not know.
        Some(field) => Err(QueueError::unavailable(
            JOINING,
            format!(
                "the server made consumer {name} of {stream} with another {field} than it was asked for"
            ),
        )),
        None => Ok(info),
    }
}

/// Logs that a match has changed while events waited for the route: a changed match applies to
/// what is not yet delivered, and so to these, of which nothing else tells.
fn say_what_is_passed_over(wanted: &pull::Config, before: &Info) {
    let behind = before.num_pending + before.num_ack_pending as u64;
    let had = before.config.metadata.get(FILTER);
    if had.is_none() || had == wanted.metadata.get(FILTER) || behind == 0 {
        return;
    }
    tracing::warn!(
        route = before.name,
        behind,
        "the match of a route has changed while events wait for it: those of them that it does not match any more are not delivered"
    );
}

/// Returns the field of a consumer whose value is not the one that was requested.
fn differs(wanted: &pull::Config, info: &Info) -> Option<&'static str> {
    let found = &info.config;
    let mut filters: Vec<&str> = found.filter_subjects.iter().map(String::as_str).collect();
    if !found.filter_subject.is_empty() {
        filters.push(&found.filter_subject);
    }
    filters.sort_unstable();
    let mut asked: Vec<&str> = wanted.filter_subjects.iter().map(String::as_str).collect();
    asked.sort_unstable();
    [
        ("filter_subjects", filters == asked),
        (
            "metadata",
            found.metadata.get(FILTER) == wanted.metadata.get(FILTER)
                && !found.metadata.contains_key(JOINING_AS)
                && !found.metadata.contains_key(HELD_UNTIL)
                && !found.metadata.contains_key(HELD_FOR),
        ),
        ("ack_policy", found.ack_policy == wanted.ack_policy),
        ("ack_wait", found.ack_wait == wanted.ack_wait),
        ("max_deliver", found.max_deliver == wanted.max_deliver),
        (
            "max_ack_pending",
            found.max_ack_pending == wanted.max_ack_pending,
        ),
    ]
    .into_iter()
    .find(|(_, same)| !same)
    .map(|(field, _)| field)
}
