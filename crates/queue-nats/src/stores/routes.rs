//! Routes: their progress, pausing, retrying at once and forgetting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream::consumer::Info;
use event_model::{EventId, Timestamp};
use futures::{StreamExt, stream};
use queue::{DeadLetters, FactStore, Pause, QueueError, RouteProcessStatus, RouteState};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::api;
use crate::connect::NatsConnection;
use crate::consuming::{FILTER, floor};
use crate::message;
use crate::names::{EVENTS_SUBJECT, HEADER_TIME, due, waiting};
use crate::periodic_duties;
use crate::route_status;
use crate::shared::Shared;
use crate::stores::JetStreamStores;
use crate::streams::{RETRIES, Shard, StreamName};

const LOOKING: &str = "looking at the routes";

/// Routes whose states are read at once.
const READ_TOGETHER: usize = 16;

/// Returns the routes among a stream's consumers.
pub(crate) async fn routes(
    link: &NatsConnection,
    stream: StreamName,
) -> Result<Vec<Info>, QueueError> {
    let consumers = api::consumers(link, stream)
        .await
        .map_err(|error| error.of(LOOKING))?;
    Ok(consumers
        .into_iter()
        .filter(|info| info.config.durable_name.is_some())
        .collect())
}

/// Returns the state of every route, without those whose state can't be read.
pub(crate) async fn states(shared: &Arc<Shared>) -> Result<Vec<RouteState>, QueueError> {
    let link = &shared.link;
    let info = api::stream_info(link, Shard::ONLY.events())
        .await
        .map_err(|error| error.of(LOOKING))?;
    let last = info.state.last_sequence;
    let kept = info.state.messages;
    let events = routes(link, Shard::ONLY.events()).await?;
    let retries: BTreeMap<String, Info> = routes(link, RETRIES)
        .await?
        .into_iter()
        .map(|info| (info.name.clone(), info))
        .collect();
    let dead: BTreeMap<String, u64> = JetStreamStores(Arc::clone(shared))
        .count()
        .await?
        .into_iter()
        .collect();
    let working = route_status::ask(link).await?;
    let seen = Seen {
        last,
        kept,
        retries,
        dead,
        working,
    };
    let reading = events.into_iter().map(async |info| {
        let state = seen.state(shared, &info).await;
        (info.name, state)
    });
    let read: Vec<_> = stream::iter(reading)
        .buffered(READ_TOGETHER)
        .collect()
        .await;
    let mut states = Vec::new();
    let mut failed = None;
    for (route, state) in read {
        match state {
            Ok(state) => states.push(state),
            Err(error) => {
                tracing::warn!(route, %error, "the state of a route can't be read: the others are shown without it");
                failed = Some(error);
            }
        }
    }
    match failed {
        Some(error) if states.is_empty() => Err(error),
        _ => {
            states.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(states)
        }
    }
}

/// What is read once for all routes.
struct Seen {
    /// Last sequence and number of the events.
    last: u64,
    kept: u64,
    /// The routes' consumers of the retries, and their numbers of dead letters.
    retries: BTreeMap<String, Info>,
    dead: BTreeMap<String, u64>,
    working: Vec<RouteProcessStatus>,
}

impl Seen {
    /// Returns the state of the route with this consumer of the events.
    async fn state(&self, shared: &Arc<Shared>, info: &Info) -> Result<RouteState, QueueError> {
        let link = &shared.link;
        let name = info.name.clone();
        let retries = self.retries.get(&name);
        // Each delivery that waits has a subject of its own.
        let waits = api::count_subjects(link, RETRIES, &waiting(&name, ">"))
            .await
            .map_err(|error| error.of(LOOKING))?;
        let (redelivered, due) = retries.map_or((0, 0), |info| {
            (info.num_ack_pending as u64, info.num_pending)
        });
        let progress = progress(link, info, self.last).await?;
        let position = Shard::ONLY.position(progress.sent)?;
        let oldest = oldest(link, info, &progress, retries, self.last, waits > 0).await?;
        let paused = info.paused || retries.is_some_and(|retries| retries.paused);
        let pause = if paused {
            Some(pause_of(shared, &name).await?)
        } else {
            None
        };
        Ok(RouteState {
            position,
            oldest,
            behind: self.last.saturating_sub(progress.sent),
            kept: self.kept,
            waiting: waits + due,
            in_flight: info.num_ack_pending as u64 + redelivered,
            dead: self.dead.get(&name).copied().unwrap_or(0),
            paused,
            pause,
            filter: info.config.metadata.get(FILTER).cloned(),
            working: self
                .working
                .iter()
                .filter(|working| working.route == name)
                .cloned()
                .collect(),
            name,
        })
    }
}

/// Returns the state of every route as one of the processes saw it a moment ago: metrics are
/// scraped again and again, and need not be right to the second.
pub(crate) async fn recent_states(shared: &Arc<Shared>) -> Result<Vec<RouteState>, QueueError> {
    let marks = JetStreamStores(Arc::clone(shared));
    let found = FactStore::get(&marks, SNAPSHOT).await.ok().flatten();
    let found = found.and_then(|found| serde_json::from_slice::<Snapshot>(&found).ok());
    let is_younger = |snapshot: &Snapshot, than: Duration| {
        let age = periodic_duties::age(snapshot.at, shared.monitor.servers_now());
        age.is_some_and(|age| age < than)
    };
    let fresh = found
        .as_ref()
        .filter(|snapshot| is_younger(snapshot, FRESH));
    if let Some(fresh) = fresh {
        return Ok(fresh.states.clone());
    }
    let is_ours = periodic_duties::claim(shared, periodic_duties::ROUTES, FRESH).await;
    if let Some(usable) = found.filter(|snapshot| !is_ours && is_younger(snapshot, USABLE)) {
        return Ok(usable.states);
    }
    let states = states(shared).await?;
    let snapshot = Snapshot {
        at: shared.monitor.servers_now(),
        states,
    };
    let body = serde_json::to_vec(&snapshot).unwrap_or_default();
    if is_ours && body.len() <= MOST_SHARED {
        // If it can't be shared, the next caller looks again.
        let _ = FactStore::set(&marks, SNAPSHOT, body.into()).await;
    }
    Ok(snapshot.states)
}

/// The states that one process saw, for the others.
#[derive(Debug, Serialize, Deserialize)]
struct Snapshot {
    /// Time of the states, by the servers' clock.
    at: Timestamp,
    states: Vec<RouteState>,
}

/// Name of the fact that holds the snapshot.
const SNAPSHOT: &str = "routes";

/// Ages of a snapshot from which one process looks again, and from which every process does.
const FRESH: Duration = Duration::from_secs(14);
const USABLE: Duration = Duration::from_secs(45);

/// Most bytes of a snapshot: those of a hundred routes in twenty processes. A larger one is not
/// shared, and every process looks for itself.
const MOST_SHARED: usize = 512 << 10;

/// Returns when the oldest event came in that a route has still to deliver: the first of those
/// that it has not settled, those that wait and those that are due.
async fn oldest(
    link: &NatsConnection,
    info: &Info,
    progress: &Progress,
    retries: Option<&Info>,
    last: u64,
    waits: bool,
) -> Result<Option<Timestamp>, QueueError> {
    let from = progress.settled + 1;
    let unsettled = json!({ "seq": from, "next_by_subj": ">" });
    let waiting = json!({ "seq": 1, "next_by_subj": waiting(&info.name, ">") });
    // Due and not settled: nobody fetches it while the breaker is open.
    let due_from = retries.map_or(1, |retries| retries.ack_floor.stream_sequence + 1);
    let due = json!({ "seq": due_from, "next_by_subj": due(&info.name, ">") });
    let is_due =
        retries.is_some_and(|retries| retries.num_pending > 0 || retries.num_ack_pending > 0);
    let mut oldest = None;
    for (stream, request, is_asked) in [
        (Shard::ONLY.events(), unsettled, from <= last),
        (RETRIES, waiting, waits),
        (RETRIES, due, is_due),
    ] {
        if !is_asked {
            continue;
        }
        let found = api::get_message(link, stream, &request)
            .await
            .map_err(|error| error.of(LOOKING))?;
        let came_in = found.and_then(|found| message::parsed(&found.headers, HEADER_TIME).ok());
        oldest = [oldest, came_in].into_iter().flatten().min();
    }
    Ok(oldest)
}

/// A route's progress in a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Everything up to here that the route matches was sent to it.
    pub(crate) sent: u64,
    /// Everything up to here that the route matches is settled by it.
    pub(crate) settled: u64,
}

/// Returns a route's progress in a stream that ended at `last` before `info` was read.
pub(crate) async fn progress(
    link: &NatsConnection,
    info: &Info,
    last: u64,
) -> Result<Progress, QueueError> {
    let delivered = info.delivered.stream_sequence;
    // What comes after the last delivery and does not match is behind the route too.
    let sent = if info.num_pending == 0 {
        sent_all(link, info, last).await?
    } else {
        delivered
    };
    let settled = if info.num_ack_pending == 0 {
        sent
    } else {
        info.ack_floor.stream_sequence
    };
    Ok(Progress { sent, settled })
}

/// Returns up to where a route has settled everything, as the server counts it. Only for display;
/// see `sent_all`.
pub(crate) fn settled_as_counted(info: &Info) -> u64 {
    match (info.num_ack_pending, info.num_pending) {
        (0, 0) => u64::MAX,
        (0, _) => info.delivered.stream_sequence,
        _ => info.ack_floor.stream_sequence,
    }
}

/// Returns up to where a route was sent everything, if the server counts nothing that it has
/// still to get. That count is checked and not believed: servers up to 2.15.1 count nothing for a
/// consumer whose subjects were taken away (`docs/nats-server-fault.md`), and the result decides
/// what is removed for good.
async fn sent_all(link: &NatsConnection, info: &Info, last: u64) -> Result<u64, QueueError> {
    let delivered = info.delivered.stream_sequence;
    let mut first = None;
    for subject in filter_subjects(info) {
        if delivered >= last {
            break;
        }
        let request = json!({ "seq": delivered + 1, "next_by_subj": subject });
        let found = api::get_message(link, Shard::ONLY.events(), &request)
            .await
            .map_err(|error| error.of(LOOKING))?;
        first = [first, found.map(|found| found.sequence)]
            .into_iter()
            .flatten()
            .min();
    }
    Ok(first
        .map_or(last, |first| last.min(first - 1))
        .max(delivered))
}

/// Returns the subjects that a consumer gets.
fn filter_subjects(info: &Info) -> Vec<&str> {
    let config = &info.config;
    let several = config.filter_subjects.iter().map(String::as_str);
    let one = Some(config.filter_subject.as_str()).filter(|subject| !subject.is_empty());
    let subjects: Vec<&str> = several.chain(one).collect();
    if subjects.is_empty() {
        vec![EVENTS_SUBJECT]
    } else {
        subjects
    }
}

/// Length of a pause "until somebody resumes it" for the server, which wants a time.
const UNTIL_RESUMED: Duration = Duration::from_hours(24 * 365 * 10);

/// Pauses a route's deliveries on the server, or resumes them.
pub(crate) async fn set_paused(
    shared: &Shared,
    route: &str,
    pause: Option<&Pause>,
) -> Result<(), QueueError> {
    let paused = pause.is_some();
    let until = pause.map(|pause| match pause.until {
        Some(until) => shared.monitor.servers_time(until).to_string(),
        None => shared.after(UNTIL_RESUMED).to_string(),
    });
    let request = until.map_or_else(|| json!({}), |until| json!({ "pause_until": until }));
    // In this order, a change that is cut off half-way begins nothing new, and the route is still
    // shown as paused.
    let order = if paused {
        [Shard::ONLY.events(), RETRIES]
    } else {
        [RETRIES, Shard::ONLY.events()]
    };
    for stream in order {
        match api::pause_consumer(&shared.link, stream, route, &request).await {
            Ok(()) => {}
            Err(error) if error.is_missing() => {
                return Err(QueueError::NotFound(format!("route {route}")));
            }
            Err(error) => return Err(error.of("pausing the route")),
        }
    }
    Ok(())
}

/// Names the fact that holds the part of a pause that the servers don't store.
pub(crate) fn pause_mark(route: &str) -> String {
    format!("pause.{route}")
}

async fn pause_of(shared: &Arc<Shared>, route: &str) -> Result<Pause, QueueError> {
    let said = FactStore::get(&JetStreamStores(Arc::clone(shared)), &pause_mark(route)).await?;
    Ok(said
        .and_then(|said| serde_json::from_slice(&said).ok())
        .unwrap_or_default())
}

/// Makes the waiting deliveries of an event due now. One that became due meanwhile is left as it
/// is: it is being attempted, or will be.
pub(crate) async fn retry_now(
    shared: &Shared,
    route: &str,
    event: EventId,
) -> Result<u64, QueueError> {
    const MAKING: &str = "making a delivery due";
    let filter = waiting(route, &format!("{event}.*"));
    let waits = api::subjects(&shared.link, RETRIES, &filter)
        .await
        .map_err(|error| error.of(MAKING))?;
    shared.monitor.read_retries_clock().await;
    let now = shared.monitor.retries_time(shared.monitor.servers_now());
    let mut made_due = 0;
    for (subject, _) in waits {
        let found = api::last_message(&shared.link, RETRIES, &subject).await;
        let Some(message) = found.map_err(|error| error.of(MAKING))? else {
            continue;
        };
        let mut headers = message.headers;
        headers.insert("Nats-Schedule", format!("@at {now}"));
        headers.insert(
            NATS_MESSAGE_ID,
            format!("{subject}/now/{}", message.sequence),
        );
        headers.insert(
            NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            message.sequence.to_string(),
        );
        made_due += u64::from(
            shared
                .publisher
                .put_if(subject, headers, message.payload)
                .await?,
        );
    }
    Ok(made_due)
}

const FORGETTING: &str = "forgetting the route";

/// Removes a route's position, what was noted of it, and what it had still to deliver. A route of
/// which any of that is left can be forgotten, also if the servers have lost its consumers.
pub(crate) async fn forget(shared: &Shared, route: &str) -> Result<(), QueueError> {
    let link = &shared.link;
    let is_name = !route.contains(['.', '*', '>']);
    if !is_name || !is_known(link, route).await? {
        return Err(QueueError::NotFound(format!("route {route}")));
    }
    if is_in_use(shared, route).await? {
        return Err(QueueError::InUse(format!("route {route}")));
    }
    // First: it would be where a later route of this name goes on.
    floor::forget(link, route)
        .await
        .map_err(|error| error.of(FORGETTING))?;
    for subject in [waiting(route, ">"), due(route, ">")] {
        api::purge(link, RETRIES, json!({ "filter": subject }))
            .await
            .map_err(|error| error.of(FORGETTING))?;
    }
    for stream in [RETRIES, Shard::ONLY.events()] {
        match api::delete_consumer(link, stream, route).await {
            Err(error) if !error.is_missing() => return Err(error.of(FORGETTING)),
            _ => {}
        }
    }
    Ok(())
}

/// Whether anything of a route is left on the servers.
async fn is_known(link: &NatsConnection, route: &str) -> Result<bool, QueueError> {
    for stream in [Shard::ONLY.events(), RETRIES] {
        if consumer(link, stream, route).await?.is_some() {
            return Ok(true);
        }
    }
    floor::is_noted(link, route)
        .await
        .map_err(|error| error.of(FORGETTING))
}

async fn is_in_use(shared: &Shared, route: &str) -> Result<bool, QueueError> {
    if shared.has_joined(route) {
        return Ok(true);
    }
    let info = consumer(&shared.link, Shard::ONLY.events(), route).await?;
    if info.as_ref().is_some_and(|info| info.num_waiting > 0) {
        return Ok(true);
    }
    // A route that is paused, or rests behind its breaker, fetches nothing, and has nothing in hand.
    // Unsettled deliveries, though, may be leased by a process that is gone.
    let working = route_status::ask(&shared.link).await?;
    Ok(working.iter().any(|working| working.route == route))
}

async fn consumer(
    link: &NatsConnection,
    stream: StreamName,
    route: &str,
) -> Result<Option<Info>, QueueError> {
    match api::consumer_info(link, stream, route).await {
        Ok(info) => Ok(Some(info)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.of(FORGETTING)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A snapshot that a process of an earlier version has shared is used until it is old.
    #[test]
    fn a_snapshot_of_an_earlier_version_has_positions_as_numbers() {
        let snapshot = r#"{"at":"2026-01-01T00:00:00Z","states":[{"name":"r","position":7,"behind":1,"kept":8,
            "waiting":0,"in-flight":0,"oldest":null,"dead":0,"paused":false,"pause":null,"filter":null,"working":[]}]}"#;
        let snapshot: Snapshot = serde_json::from_str(snapshot).unwrap();
        assert_eq!(
            snapshot.states[0].position,
            Shard::ONLY.position(7).unwrap()
        );
    }
}
