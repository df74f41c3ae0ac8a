//! What a queue keeps beside the events that wait: for a person to see, and to
//! send again.

use std::fmt;
use std::time::Duration;

use event_model::{Bytes, Event, EventId, FluentKey, KeyId, Origin, Proof, Timestamp};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{
    Attempt, AttemptPage, AttemptQuery, DeadLetters, DeadReason, HasMarks, Position, QueueError, RefusedHold,
    StoresHealth, Working,
};

/// The stores of one queue. An adapter also opens them alone, beside a running
/// service, for the commands.
///
/// ```
/// use queue::{DeadQuery, QueueError, Stores};
///
/// /// Sends some of a route's dead letters again, and says how many.
/// async fn redrive(stores: &dyn Stores, route: &str) -> Result<usize, QueueError> {
///     let query = DeadQuery { route: Some(route.to_owned()), limit: 100, ..DeadQuery::default() };
///     let letters = stores.dead_letters().list(query).await?;
///     let ids: Vec<u64> = letters.iter().map(|letter| letter.id).collect();
///     let answers = stores.dead_letters().redrive(&ids, None).await;
///     Ok(answers.iter().filter(|answer| answer.is_ok()).count())
/// }
/// ```
pub trait Stores: HasMarks {
    /// Deliveries that no attempt can help.
    fn dead_letters(&self) -> &dyn DeadLetters;

    /// Genuine bodies that are not events.
    fn quarantine(&self) -> &dyn Quarantine;

    /// Webhooks that were refused, and may have been refused wrongly.
    fn refused(&self) -> &dyn RefusedHold;

    /// What happened to events.
    fn history(&self) -> &dyn History;

    /// Publishes an event as [`Intake::publish`](crate::Intake::publish) does, for
    /// who holds the stores alone. Says whether it was there before.
    fn admit(&self, event: Event) -> BoxFuture<'_, Result<bool, QueueError>>;

    /// How servers and room behind these stores do, as far as it can be seen from here.
    fn health(&self) -> BoxFuture<'_, Result<StoresHealth, QueueError>>;

    /// Every route that has a position here, also those no longer in settings.
    fn routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>>;

    /// The same as anybody saw it within the last few seconds: for who looks again and again
    /// in many processes, where each look costs the queue a few questions for each route.
    fn recent_routes(&self) -> BoxFuture<'_, Result<Vec<RouteState>, QueueError>> {
        self.routes()
    }

    /// Gives up a route's position and what it had still to deliver.
    fn forget<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Holds a route's deliveries back, in every process and over restarts, until the
    /// pause ends or somebody lets them go again (`None`): within [`PAUSES_WITHIN`] of
    /// the answer. What is in flight ends as it would.
    fn set_paused<'a>(
        &'a self,
        route: &'a str,
        pause: Option<&'a Pause>,
    ) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Makes what waits of an event on a route due now; says how many deliveries that were.
    fn retry_now<'a>(&'a self, route: &'a str, event: EventId) -> BoxFuture<'a, Result<u64, QueueError>>;

    /// Tells every process that runs a route to ask its destination at once, whatever its
    /// breaker says: within [`PAUSES_WITHIN`] of the answer.
    fn close_breakers<'a>(&'a self, route: &'a str) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Hands events that were received before to `route` once more, with fresh
    /// attempts; says of each what became of that. What the route is done with, has as a
    /// dead letter, or had before the history begins, is left out, but for `again`; what it
    /// has still before it always is.
    fn replay<'a>(
        &'a self,
        route: &'a str,
        events: &'a [(Position, Event)],
        again: bool,
    ) -> BoxFuture<'a, Result<Vec<Replayed>, QueueError>>;
}

/// Why, and for how long, a route's deliveries are held back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pause {
    /// When it ends by itself; nothing where somebody has to end it.
    pub until: Option<Timestamp>,
    /// In a person's words.
    pub reason: Option<String>,
    /// Who.
    pub by: Option<String>,
}

/// What became of an event that was to be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It is handed over.
    HandedOver,
    /// The route is done with it.
    Done,
    /// It comes to the route by itself, or is being attempted.
    Ahead,
    /// It is a dead letter of the route's, to be redriven.
    Dead,
    /// It is no longer kept.
    Gone,
    /// What became of it there is no longer kept: it may be done, or have been left out.
    Unknown,
}

/// How soon a pause holds for deliveries that are asked for.
pub const PAUSES_WITHIN: Duration = Duration::from_secs(2);

const _: fn(&dyn Stores) = |_| {};

/// Where a route stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RouteState {
    /// Its name.
    pub name: String,
    /// Everything up to here was looked at.
    pub position: Position,
    /// Events behind that position, matching or not.
    pub behind: u64,
    /// Events that the queue keeps, before that position and behind it.
    pub kept: u64,
    /// Deliveries waiting for a retry.
    pub waiting: u64,
    /// Deliveries being attempted.
    pub in_flight: u64,
    /// When the oldest event came in that is still to be delivered; on a cluster, of
    /// deliveries that wait for a retry, the one that waits longest counts.
    pub oldest: Option<Timestamp>,
    /// Dead letters.
    pub dead: u64,
    /// Whether a person holds its deliveries back.
    pub paused: bool,
    /// Until when, why, and who: as far as it was said.
    pub pause: Option<Pause>,
    /// The [digest](crate::Filter::digest) of what it matched when it last ran.
    pub filter: Option<String>,
    /// What each process that runs it says; none where nobody does.
    pub working: Vec<Working>,
}

/// A genuine body that is not an event.
#[derive(Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Names it in commands; 0 before it is stored.
    pub id: u64,
    /// The exact bytes.
    pub body: Bytes,
    /// How they are known to be Fluent's.
    pub proof: Proof,
    /// Whose key matched.
    pub key: KeyId,
    /// The signature, standard base64.
    pub signature: String,
    /// When it arrived.
    pub received_at: Timestamp,
    /// Why it is not an event.
    pub reason: String,
}

impl fmt::Debug for Quarantined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quarantined({}, {}, {} bytes)", self.id, self.reason, self.body.len())
    }
}

/// Genuine bodies that are not events.
pub trait Quarantine: fmt::Debug + Send + Sync {
    /// Keeps `body`. When this returns `Ok`, a crash does not lose it. The
    /// same bytes under the same key are kept once.
    fn keep(&self, body: Quarantined) -> BoxFuture<'_, Result<(), QueueError>>;

    /// In order of their ids, from after the one given; fewer than asked for where their
    /// bodies are more than [`PAGE_BYTES`](crate::PAGE_BYTES), none only at the end.
    fn list(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Quarantined>, QueueError>>;

    /// One of them.
    fn get(&self, id: u64) -> BoxFuture<'_, Result<Quarantined, QueueError>>;

    /// Publishes the event it turned out to be and removes it. Both or neither.
    fn release(&self, id: u64, event: Event) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Removes it for good.
    fn discard(&self, id: u64) -> BoxFuture<'_, Result<(), QueueError>>;
}

/// How many genuine bodies are quarantined, counted to `most`: page by page, as their bodies
/// come with them.
pub async fn count_quarantined(quarantine: &dyn Quarantine, most: usize) -> Result<usize, QueueError> {
    let (mut count, mut last) = (0, 0);
    while count < most {
        let page = quarantine.list(last, most - count).await?;
        let Some(newest) = page.last() else { break };
        (last, count) = (newest.id, count + page.len());
    }
    Ok(count)
}

/// Which events.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedQuery {
    /// Received then, or later.
    pub from: Timestamp,
    /// Received before that.
    pub until: Timestamp,
    /// Behind this position.
    pub after: Position,
    /// At most so many.
    pub limit: usize,
}

/// Some events, and where to go on.
#[derive(Clone, Debug, Default)]
pub struct ReceivedPage {
    /// With their positions, which rise.
    pub events: Vec<(Position, Event)>,
    /// The position to go on from; `None` at the end.
    pub next: Option<Position>,
}

/// The same, as [`ReceivedPage`] has it, of what Fluent knows events by alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceivedKeys {
    /// With their positions, which rise.
    pub keys: Vec<(Position, FluentKey)>,
    /// The position to go on from; `None` at the end.
    pub next: Option<Position>,
}

/// What happened to events, for its stated time.
pub trait History: fmt::Debug + Send + Sync {
    /// The newest events whose entity ref, root entity ref, Fluent's own event id, or
    /// whose id or its beginning is `reference`, newest first.
    fn find<'a>(
        &'a self,
        reference: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<EventStory>, QueueError>>;

    /// The newest event that `reference` names, as [`History::find`] takes it, whole.
    fn event<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Event>, QueueError>>;

    /// Attempts that have ended, the newest first.
    fn attempts(&self, query: AttemptQuery) -> BoxFuture<'_, Result<AttemptPage, QueueError>>;

    /// Events that are kept and were received in a time, from after a position, in
    /// order of their positions; and the position to go on from, or none at the end.
    fn received(&self, query: ReceivedQuery) -> BoxFuture<'_, Result<ReceivedPage, QueueError>>;

    /// The same of what Fluent knows them by: a queue that need not read bodies for that reads
    /// none.
    fn received_keys(&self, query: ReceivedQuery) -> BoxFuture<'_, Result<ReceivedKeys, QueueError>> {
        Box::pin(async move {
            let ReceivedPage { events, next } = self.received(query).await?;
            let keys = events.into_iter().map(|(position, event)| (position, event.fluent_key()));
            Ok(ReceivedKeys { keys: keys.collect(), next })
        })
    }

    /// Every event that came at this time or later is kept: what is not here never came.
    /// Before it, nobody knows.
    fn complete_since(&self) -> BoxFuture<'_, Result<Timestamp, QueueError>>;

    /// Reads what [`History::find`] would have to read first. Says whether there was
    /// anything to read it into.
    fn catch_up(&self) -> BoxFuture<'_, Result<bool, QueueError>> {
        Box::pin(std::future::ready(Ok(false)))
    }
}

/// One event's story.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct EventStory {
    /// Who it is.
    #[serde(serialize_with = "as_text")]
    pub id: EventId,
    /// Where it is kept.
    pub position: Position,
    /// Its name.
    pub name: String,
    /// Fluent's own id of it.
    pub fluent_event_id: String,
    /// What Fluent knows it by: another event may have the same, with another body.
    #[serde(serialize_with = "as_text")]
    pub fluent_key: FluentKey,
    /// `<entityType>/<entityRef>`.
    pub entity: Option<String>,
    /// `/fluent/<environment>/<account>/<retailer>`.
    pub source: String,
    /// When it arrived.
    pub received_at: Timestamp,
    /// How it came.
    pub origin: Origin,
    /// The trace to look for.
    pub trace_id: Option<String>,
    /// Where it came before the history of attempts begins: since when that is kept. What
    /// happened to it before is in none of its steps.
    pub history_since: Option<Timestamp>,
    /// What each route made of it, in order of time.
    pub steps: Vec<StoryStep>,
    /// Where it stands, by route.
    pub states: Vec<StoryState>,
}

fn as_text<T: fmt::Display, S: serde::Serializer>(value: &T, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(value)
}

/// One attempt of one route.
#[derive(Clone, Debug, Serialize)]
pub struct StoryStep {
    /// The route.
    pub route: String,
    /// Number of the redrive or replay, 0 for none.
    pub redrive: u32,
    /// Number of the attempt.
    pub attempt: u32,
    /// What is known of it.
    #[serde(flatten)]
    pub record: Attempt,
}

/// Where an event stands on one route.
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
        /// Not before this.
        due: Timestamp,
    },
    /// A dead letter.
    Dead {
        /// The route.
        route: String,
        /// Its number.
        letter: u64,
        /// Why.
        reason: DeadReason,
    },
    /// The route has not come to it yet, or does not match it.
    NotReached {
        /// The route.
        route: String,
    },
    /// The route has come to it, and what became of it is no longer kept.
    Unknown {
        /// The route.
        route: String,
    },
}
