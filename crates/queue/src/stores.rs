//! The stores of a queue beside the events that wait: dead letters, quarantine, history and
//! routes, which people list and repeat.

use std::fmt;
use std::time::Duration;

use event_model::{Bytes, Event, EventId, FluentKey, KeyId, Origin, Proof, Timestamp};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{
    AcceptedPage, AcceptedQuery, Attempt, AttemptPage, AttemptQuery, DeadLetters, DeadReason,
    FactAccess, Position, QueueError, RejectedStore, RouteProcessStatus, StoresHealth,
};

/// The stores of one queue. For commands, an adapter also opens them alone, beside a running
/// process.
///
/// ```
/// use fluent_queue::{DeadQuery, QueueError, Stores};
///
/// /// Redrives some of a route's dead letters, and returns how many.
/// async fn redrive(stores: &dyn Stores, route: &str) -> Result<usize, QueueError> {
///     let query = DeadQuery { route: Some(route.to_owned()), limit: 100, ..DeadQuery::default() };
///     let letters = stores.dead_letters().list(query).await?;
///     let ids: Vec<u64> = letters.iter().map(|letter| letter.id).collect();
///     let answers = stores.dead_letters().redrive(&ids, None).await;
///     Ok(answers.iter().filter(|answer| answer.is_ok()).count())
/// }
/// ```
pub trait Stores: FactAccess {
    /// Deliveries that no further attempt can help.
    fn dead_letters(&self) -> &dyn DeadLetters;

    /// Genuine bodies that are not events.
    fn quarantine(&self) -> &dyn Quarantine;

    /// Webhooks that were rejected, and may have been rejected wrongly.
    fn refused(&self) -> &dyn RejectedStore;

    /// The history of events and attempts.
    fn history(&self) -> &dyn History;

    /// Publishes an event as [`Intake::publish`](crate::Intake::publish) does, for a caller that
    /// has the stores alone. Returns whether it was there before.
    fn publish_if_new(&self, event: Event) -> BoxFuture<'_, Result<bool, QueueError>>;

    /// Health of the servers and the space behind these stores, as far as it can be seen from
    /// here.
    fn health(&self) -> BoxFuture<'_, Result<StoresHealth, QueueError>>;

    /// Every route that has a position here, also those no longer in settings.
    fn routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>>;

    /// The state of every route as any process saw it within the last few seconds. For callers
    /// that ask again and again in many processes, since [`Stores::routes`] costs the queue a few
    /// requests for each route.
    fn recent_routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>> {
        self.routes()
    }

    /// Gives up a route's position and what it had still to deliver.
    fn forget<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Pauses a route, in every process and over restarts, until the pause ends or it is resumed
    /// with `None`; both take effect within [`PAUSES_WITHIN`] of the answer. Attempts in flight
    /// end as usual.
    fn set_paused<'a>(
        &'a self,
        route: &'a str,
        pause: Option<&'a Pause>,
    ) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Makes the waiting deliveries of an event on a route due now; returns their number.
    fn retry_now<'a>(
        &'a self,
        route: &'a str,
        event: EventId,
    ) -> BoxFuture<'a, Result<u64, QueueError>>;

    /// Tells every process that runs a route to ask its destination at once, whatever its breaker
    /// says: within [`PAUSES_WITHIN`] of the answer.
    fn close_breakers<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Delivers stored events to `route` once more, with fresh attempts; returns the result for
    /// each. Left out are events that the route is done with, has as a dead letter, or had before
    /// the history begins, unless `again` is set, and always those that it has still before it.
    fn replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>>;

    /// What [`Stores::replay`] would return for each, without doing anything.
    fn preview_replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>>;

    /// Reserves a number for a replay to `route`, which is never given twice.
    fn number_replay<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<u32, QueueError>>;

    /// Replays as [`Stores::replay`] does, under a reserved number. An event that was handed over
    /// under it before is not handed over again, and its result is
    /// [`ReplayOutcome::HandedOver`]: so a replay that was cut off can be done once more.
    fn replay_as<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
        number: u32,
    ) -> BoxFuture<'a, Result<Vec<ReplayOutcome>, QueueError>>;
}

/// A pause of a route: its end and its reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pause {
    /// The time at which it ends by itself; `None` if a person has to end it.
    pub until: Option<Timestamp>,
    /// The reason, in a person's words.
    pub reason: Option<String>,
    /// The person who paused the route.
    pub by: Option<String>,
}

/// Result of replaying one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// The event is handed over to the route.
    HandedOver,
    /// Left out: the route is done with it.
    Done,
    /// Left out: it will come to the route by itself, or is being attempted.
    Ahead,
    /// Left out: it is a dead letter of the route, to be redriven instead.
    Dead,
    /// Left out: the event is no longer stored.
    Gone,
    /// Left out: its result on the route is no longer stored, so it may have been done or left
    /// out.
    Unknown,
}

/// Longest delay until a pause takes effect.
pub const PAUSES_WITHIN: Duration = Duration::from_secs(2);

const _: fn(&dyn Stores) = |_| {};

/// State of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RouteState {
    /// Its name.
    pub name: String,
    /// The position up to which the route has examined events.
    pub position: Position,
    /// Events behind that position, matching or not.
    pub behind: u64,
    /// Number of stored events, before that position and behind it.
    pub kept: u64,
    /// Deliveries waiting for a retry.
    pub waiting: u64,
    /// Deliveries being attempted.
    pub in_flight: u64,
    /// Arrival of the oldest event that is still to be delivered; on a cluster, of the deliveries
    /// that wait for a retry, the one that waits longest counts.
    pub oldest: Option<Timestamp>,
    /// Dead letters.
    pub dead: u64,
    /// Whether a person has paused it.
    pub paused: bool,
    /// End, reason and author of the pause, as far as they were given.
    pub pause: Option<Pause>,
    /// The [digest](crate::RouteFilter::digest) of what it matched when it last ran.
    pub filter: Option<String>,
    /// Reports of the processes that run the route; empty if none does.
    pub working: Vec<RouteProcessStatus>,
}

/// A genuine body that is not an event.
#[derive(Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The number by which commands name it; 0 before it is stored.
    pub id: u64,
    /// The exact bytes.
    pub body: Bytes,
    /// The way in which the bytes are known to be Fluent's.
    pub proof: Proof,
    /// The key that matched.
    pub key: KeyId,
    /// The signature, standard base64.
    pub signature: String,
    /// The time of arrival.
    pub received_at: Timestamp,
    /// The reason why it is not an event.
    pub reason: String,
}

impl fmt::Debug for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Quarantined({}, {}, {} bytes)",
            self.id,
            self.reason,
            self.body.len()
        )
    }
}

/// The store of genuine bodies that are not events.
pub trait Quarantine: fmt::Debug + Send + Sync {
    /// Stores `body`. When this returns `Ok`, a crash does not lose it. The same bytes under the
    /// same key are stored once.
    fn store(&self, body: Quarantined) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Lists bodies in order of their ids, beginning after `after`. The page is shorter than
    /// `limit` if the bodies exceed [`PAGE_BYTES`](crate::PAGE_BYTES), and empty only at the end.
    fn list(&self, after: u64, limit: usize)
    -> BoxFuture<'_, Result<Vec<Quarantined>, QueueError>>;

    /// The body with this id.
    fn get(&self, id: u64) -> BoxFuture<'_, Result<Quarantined, QueueError>>;

    /// Publishes the event that the body turned out to be, and removes the body: both or neither.
    fn release(&self, id: u64, event: Event) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Number of bodies.
    fn count(&self) -> BoxFuture<'_, Result<u64, QueueError>>;

    /// Removes a body for good.
    fn discard(&self, id: u64) -> BoxFuture<'_, Result<(), QueueError>>;
}

/// Selection of received events.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedQuery {
    /// Only events that were received at this time or later.
    pub from: Timestamp,
    /// Only events that were received before this time.
    pub until: Timestamp,
    /// Only events behind this position.
    pub after: Position,
    /// Largest number of events to return.
    pub limit: usize,
}

/// A page of events, with the position from which the next goes on.
#[derive(Clone, Debug, Default)]
pub struct ReceivedPage {
    /// Events with their positions, which rise.
    pub events: Vec<(Position, Event)>,
    /// The position to go on from; `None` at the end.
    pub next: Option<Position>,
}

/// A page as in [`ReceivedPage`], with Fluent's keys in place of the events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceivedKeys {
    /// Keys with the positions of their events, which rise.
    pub keys: Vec<(Position, FluentKey)>,
    /// The position to go on from; `None` at the end.
    pub next: Option<Position>,
}

/// A page of stories, with the position from which the next goes on.
#[derive(Clone, Debug, Default)]
pub struct StoryPage {
    /// The newest first.
    pub stories: Vec<EventStory>,
    /// The position before which the next page begins; `None` at the end.
    pub next: Option<Position>,
    /// Number of events in this part that are stored and can't be read: their content is damaged.
    pub unreadable: u64,
}

/// The history of events and attempts, for as long as it is stored.
pub trait History: fmt::Debug + Send + Sync {
    /// Finds the newest events whose entity ref, root entity ref, Fluent's own event id, or id or
    /// its beginning is `reference`, newest first, of those that can be read.
    fn find<'a>(
        &'a self,
        reference: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<EventStory>, QueueError>> {
        Box::pin(async move {
            let mut found = Vec::new();
            let mut before = None;
            while found.len() < limit {
                let rest = limit - found.len();
                let page = self.find_before(reference, before, rest).await?;
                found.extend(page.stories);
                before = page.next;
                if before.is_none() {
                    break;
                }
            }
            Ok(found)
        })
    }

    /// A page of what [`History::find`] finds: only events before a position, that of the page
    /// before. Looks at `limit` events, of which some may be unreadable.
    fn find_before<'a>(
        &'a self,
        reference: &'a str,
        before: Option<Position>,
        limit: usize,
    ) -> BoxFuture<'a, Result<StoryPage, QueueError>>;

    /// The event at this position, whole, if it is still stored.
    fn event_at(&self, position: Position) -> BoxFuture<'_, Result<Option<Event>, QueueError>>;

    /// The newest event that `reference` names and that can be read, whole, found as by
    /// [`History::find`].
    fn event<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Event>, QueueError>>;

    /// Accepted events, the newest first.
    fn accepted(&self, query: AcceptedQuery) -> BoxFuture<'_, Result<AcceptedPage, QueueError>>;

    /// Attempts that have ended, the newest first.
    fn attempts(&self, query: AttemptQuery) -> BoxFuture<'_, Result<AttemptPage, QueueError>>;

    /// Lists stored events that were received in a time, from after a position, in order of their
    /// positions; with the position to go on from, or `None` at the end.
    fn received(&self, query: ReceivedQuery) -> BoxFuture<'_, Result<ReceivedPage, QueueError>>;

    /// Lists Fluent's keys of the same events. A queue that can do so without reading bodies
    /// reads none: then a key is only what its message says, see [`History::genuine_keys`].
    fn received_keys(
        &self,
        query: ReceivedQuery,
    ) -> BoxFuture<'_, Result<ReceivedKeys, QueueError>> {
        Box::pin(async move {
            let ReceivedPage { events, next } = self.received(query).await?;
            let keys = events
                .into_iter()
                .map(|(position, event)| (position, event.fluent_key()));
            Ok(ReceivedKeys {
                keys: keys.collect(),
                next,
            })
        })
    }

    /// Returns those of `keys` that are known to be of genuine events at these positions. A queue
    /// to which others can write reads each event and verifies it, if it was opened with a verifier.
    fn genuine_keys(
        &self,
        keys: Vec<(Position, FluentKey)>,
    ) -> BoxFuture<'_, Result<Vec<FluentKey>, QueueError>> {
        let keys = keys.into_iter().map(|(_, key)| key).collect();
        Box::pin(std::future::ready(Ok(keys)))
    }

    /// The time since which every event that came is stored: an event that is not here did not
    /// come since then. Nothing is known about the time before.
    fn complete_since(&self) -> BoxFuture<'_, Result<Timestamp, QueueError>>;

    /// Reads ahead what [`History::find`] would have to read first. Returns whether there is an
    /// index to read it into.
    fn catch_up(&self) -> BoxFuture<'_, Result<bool, QueueError>> {
        Box::pin(std::future::ready(Ok(false)))
    }
}

/// The story of one event: its attempts, and its state on each route.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct EventStory {
    /// The event's id.
    #[serde(serialize_with = "as_text")]
    pub id: EventId,
    /// Its position.
    pub position: Position,
    /// Its name.
    pub name: String,
    /// Fluent's own id of it.
    pub fluent_event_id: String,
    /// Fluent's key of the event: another event may have the same key, with another body.
    #[serde(serialize_with = "as_text")]
    pub fluent_key: FluentKey,
    /// `<entityType>/<entityRef>`.
    pub entity: Option<String>,
    /// `/fluent/<environment>/<account>/<retailer>`.
    pub source: String,
    /// The time of arrival.
    pub received_at: Timestamp,
    /// The event's origin.
    pub origin: Origin,
    /// The id of its trace.
    pub trace_id: Option<String>,
    /// The time since which attempts are stored, if the event came before it: what happened
    /// before is then missing in `steps`.
    pub history_since: Option<Timestamp>,
    /// Times in which attempts of routes could not be recorded, of those that this event may have
    /// had: they are then missing in `steps`.
    pub gaps: Vec<StoryGap>,
    /// The attempts of all routes, in order of time.
    pub steps: Vec<StoryStep>,
    /// The state on each route.
    pub states: Vec<StoryState>,
    /// Other stored events with the same key, up to [`SAME_IDS_SHOWN`]. Looked for only of that
    /// many stories of one answer.
    pub same_id: Vec<SameIdEvent>,
}

/// Most stories of one answer of which others with the same key are looked for, and most of those.
pub const SAME_IDS_SHOWN: usize = 20;

/// An event that has Fluent's key of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SameIdEvent {
    /// Its id.
    #[serde(serialize_with = "as_text")]
    pub id: EventId,
    /// The time of its arrival.
    pub received_at: Timestamp,
    /// Its origin.
    pub origin: Origin,
}

impl SameIdEvent {
    /// Takes the fields from `event`.
    pub fn of(event: &Event) -> Self {
        Self {
            id: event.id(),
            received_at: event.received_at(),
            origin: event.origin(),
        }
    }
}

fn as_text<T: fmt::Display, S: serde::Serializer>(value: &T, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(value)
}

/// A time in which attempts of a route could not be recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoryGap {
    /// The route.
    pub route: String,
    /// Attempts that ended since this time may be missing.
    pub since: Timestamp,
    /// Attempts that ended after this time are recorded.
    pub until: Timestamp,
}

/// An attempt of a route, as a story has it.
#[derive(Clone, Debug, Serialize)]
pub struct StoryStep {
    /// The route.
    pub route: String,
    /// The number of the redrive or replay; 0 for none.
    pub redrive: u32,
    /// Number of the attempt.
    pub attempt: u32,
    /// The record of the attempt.
    #[serde(flatten)]
    pub record: Attempt,
}

/// State of an event on one route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
#[non_exhaustive]
pub enum StoryState {
    /// The route finished with it.
    Done {
        /// The route.
        route: String,
    },
    /// Being attempted.
    InFlight {
        /// The route.
        route: String,
    },
    /// Waiting for a retry.
    Waiting {
        /// The route.
        route: String,
        /// The earliest time of the next attempt.
        due: Timestamp,
    },
    /// A dead letter.
    Dead {
        /// The route.
        route: String,
        /// The letter's id.
        letter: u64,
        /// The reason.
        reason: DeadReason,
    },
    /// The route has not come to it yet, or does not match it.
    NotReached {
        /// The route.
        route: String,
    },
    /// The route has come to the event, and the result there is no longer stored.
    Unknown {
        /// The route.
        route: String,
    },
}

impl StoryState {
    /// Returns the route that it is about.
    pub fn route(&self) -> &str {
        match self {
            Self::Done { route }
            | Self::InFlight { route }
            | Self::Waiting { route, .. }
            | Self::Dead { route, .. }
            | Self::NotReached { route }
            | Self::Unknown { route } => route,
        }
    }
}
