//! Retention: removes events that every route has settled, the oldest first, by age, and by bytes
//! if the stream fills. Nothing else removes events.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::Info;
use queue::{QueueError, UNROUTED, forget_history_gaps};
use serde_json::json;

use crate::api;
use crate::consuming::floor;
use crate::names::{EVENTS_SUBJECT, dead};
use crate::periodic_duties;
use crate::shared::Shared;
use crate::stores::JetStreamStores;
use crate::stores::forgotten::history_begins;
use crate::stores::routes::{progress, routes};
use crate::streams::{DEAD, Shard, StreamName};

const CLEANING: &str = "removing what is settled";

/// Percentage of the stream's bytes above which settled events are removed before their age.
const CROWDED: u64 = 80;

/// Percentage of the dead letters' bytes above which unrouted events are removed before their
/// time.
const LETTERS_CROWDED: u64 = 50;

/// Most unrouted events that are kept: they are removed at the events' age, or if there are more
/// than a person would look at.
const MAX_UNROUTED: u64 = 100_000;

/// Ages at which settled events are removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// Age from which a settled event is removed.
    pub(crate) age: Duration,
    /// Age from which it is removed if the stream is crowded.
    pub(crate) crowded_age: Duration,
    /// Interval of the checks.
    pub(crate) every: Duration,
}

/// Removes events again and again until the queue closes. One dispatcher does so at a time; if
/// two did, the second would just find nothing to remove.
pub(crate) async fn run(shared: Arc<Shared>, retention: Retention) {
    let closing = shared.closing.clone();
    let clean = async {
        let mut lost = BTreeSet::new();
        loop {
            if let Err(error) = clean(&shared, &retention, &mut lost).await {
                tracing::warn!(%error, "settled events were not removed, this time");
            }
            if let Err(error) = forget_gaps(&shared).await {
                tracing::debug!(%error, "old gaps of the history were not looked at, this time");
            }
            tokio::time::sleep(retention.every).await;
        }
    };
    closing.run_until_cancelled(clean).await;
}

/// `known_lost` are the routes of which it was said already that their consumers are lost.
async fn clean(
    shared: &Shared,
    retention: &Retention,
    known_lost: &mut BTreeSet<String>,
) -> Result<(), QueueError> {
    if !periodic_duties::claim(shared, periodic_duties::RETENTION, retention.every).await {
        return Ok(());
    }
    // Beside each other: a list of consumers that is late or incomplete keeps events, and nothing
    // else.
    let (events, unrouted) = tokio::join!(
        clean_events(shared, retention, known_lost),
        clean_unrouted(shared, retention)
    );
    unrouted.and(events)
}

/// Removes events that every route has settled.
async fn clean_events(
    shared: &Shared,
    retention: &Retention,
    known_lost: &mut BTreeSet<String>,
) -> Result<(), QueueError> {
    let link = &shared.link;
    let info = api::stream_info(link, Shard::ONLY.events())
        .await
        .map_err(|error| error.of(CLEANING))?;
    let last = info.state.last_sequence;
    // Before the consumers: a route that joins in between is not lost.
    let mut lost: BTreeSet<String> = floor::noted_routes(link).await?.into_iter().collect();
    let routes = routes(link, Shard::ONLY.events()).await?;
    for route in &routes {
        lost.remove(&route.name);
    }
    // Nobody has joined yet: nothing is settled.
    if routes.is_empty() {
        return Ok(());
    }
    let old = first_younger(shared, Shard::ONLY.events(), EVENTS_SUBJECT, retention.age).await?;
    // A gateway may still have to read back the youngest, however crowded the stream is.
    let spooled = first_younger(
        shared,
        Shard::ONLY.events(),
        EVENTS_SUBJECT,
        retention.crowded_age,
    )
    .await?;
    let mut end = old.max(crowded_out(&info).min(spooled));
    for route in &routes {
        if end <= info.state.first_sequence {
            break;
        }
        end = end.min(progress(link, route, last).await?.settled + 1);
    }
    for route in &lost {
        // The consumer will be made again, and goes on where the route was. Who gave a route up has
        // forgotten that, too.
        let Some(settled) = floor::read(link, route).await? else {
            continue;
        };
        end = end.min(settled.sequence() + 1);
        if !known_lost.contains(route) {
            tracing::warn!(
                route,
                %settled,
                "the servers have lost the consumer of a route: what it has not settled is kept until a dispatcher runs it, or `routes forget` gives it up"
            );
        }
    }
    *known_lost = lost;
    if end > info.state.first_sequence {
        let purged = api::purge(link, Shard::ONLY.events(), json!({ "seq": end }))
            .await
            .map_err(|error| error.of(CLEANING))?;
        tracing::debug!(purged, "removed what every route has settled");
    }
    Ok(())
}

/// Removes unrouted events that are old, or too many.
async fn clean_unrouted(shared: &Shared, retention: &Retention) -> Result<(), QueueError> {
    let link = &shared.link;
    let unrouted = dead(UNROUTED);
    let crowded = crowded_letters(shared, &unrouted).await?;
    let old = first_younger(shared, DEAD, &unrouted, retention.age).await?;
    // The server takes a purge without a sequence for a purge of everything.
    if old > 1 {
        let aged = json!({ "filter": unrouted, "seq": old });
        api::purge(link, DEAD, aged)
            .await
            .map_err(|error| error.of(CLEANING))?;
    }
    let many = json!({ "filter": unrouted, "keep": crowded.unwrap_or(MAX_UNROUTED) });
    api::purge(link, DEAD, many)
        .await
        .map_err(|error| error.of(CLEANING))?;
    Ok(())
}

/// Forgets gaps of the part of the history that is removed.
async fn forget_gaps(shared: &Arc<Shared>) -> Result<(), QueueError> {
    let facts = JetStreamStores(Arc::clone(shared));
    let begins = history_begins(&shared.link).await?;
    forget_history_gaps(&facts, begins, shared.monitor.servers_now()).await
}

/// Returns how many unrouted events may stay if they take the room of dead letters: half of those
/// there are, each time, until no more than half of the stream is taken. A full stream takes no
/// dead letters, and then deliveries can't be settled.
async fn crowded_letters(shared: &Shared, unrouted: &str) -> Result<Option<u64>, QueueError> {
    let info = api::stream_info(&shared.link, DEAD)
        .await
        .map_err(|error| error.of(CLEANING))?;
    let limit = u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX);
    if info.state.bytes <= limit / 100 * LETTERS_CROWDED {
        return Ok(None);
    }
    let counted = api::subjects(&shared.link, DEAD, unrouted)
        .await
        .map_err(|error| error.of(CLEANING))?;
    let count: u64 = counted.iter().map(|(_, count)| count).sum();
    if count > 0 {
        tracing::warn!(
            removed = count - count / 2,
            "unrouted events take the room of dead letters: the oldest go"
        );
    }
    // The server takes a purge that keeps 0 for one that keeps all: one stays.
    Ok((count > 0).then_some((count / 2).max(1)))
}

/// Finds the sequence of the first message that is not yet `age` old, by bisection, since
/// sequences rise with time.
async fn first_younger(
    shared: &Shared,
    stream: StreamName,
    subject: &str,
    age: Duration,
) -> Result<u64, QueueError> {
    let info = api::stream_info(&shared.link, stream)
        .await
        .map_err(|error| error.of(CLEANING))?;
    let oldest_kept = shared
        .monitor
        .servers_now()
        .saturating_sub(age)
        .map_or(i128::MIN, |time| time.as_nanosecond());
    let mut low = info.state.first_sequence;
    let mut high = info.state.last_sequence + 1;
    while low < high {
        let middle = low + (high - low) / 2;
        let request = json!({ "seq": middle, "next_by_subj": subject });
        let found = api::get_message(&shared.link, stream, &request).await;
        match found.map_err(|error| error.of(CLEANING))? {
            Some(message) if message.time.unix_timestamp_nanos() <= oldest_kept => {
                low = message.sequence + 1
            }
            _ => high = middle,
        }
    }
    Ok(low)
}

/// Returns the sequence up to which to remove so that the stream is no longer crowded, as if
/// every event had the same size.
fn crowded_out(info: &Info) -> u64 {
    let state = &info.state;
    let limit = u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX) / 100 * CROWDED;
    if state.bytes <= limit || state.bytes == 0 {
        return state.first_sequence;
    }
    let too_many =
        u128::from(state.messages) * u128::from(state.bytes - limit) / u128::from(state.bytes);
    state.first_sequence + u64::try_from(too_many).unwrap_or(0)
}
