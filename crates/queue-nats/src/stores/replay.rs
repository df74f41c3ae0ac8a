//! Replay: events that were received before are delivered to one route once more.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::consumer::Info;
use event_model::{Bytes, Event, EventId, FluentKey, StoredVerdict, Timestamp};
use futures::{FutureExt, StreamExt, stream};
use queue::{
    HistoryIndex, PAGE_BYTES, Position, QueueError, ReceivedKeys, ReceivedPage, ReceivedQuery,
    ReplayOutcome, redrive_number,
};
use tokio::sync::OnceCell;

use crate::api;
use crate::attempts::{AttemptRecord, NextState, latest};
use crate::consuming::DeliveryState;
use crate::message::{self, parsed};
use crate::names::{EVENTS_SUBJECT, HEADER_LOG_KEY, HEADER_TIME, due, replay};
use crate::shared::Shared;
use crate::stores::JetStreamStores;
use crate::stores::forgotten::{UnrecordedAttempts, on_its_way};
use crate::stores::indexing::catch_up;
use crate::stores::routes::progress;
use crate::stores::scan::{Scan, Stored};
use crate::streams::{DEAD, RETRIES, Shard, event_at};

const REPLAYING: &str = "replaying";
const NUMBERING: &str = "numbering the replay: may this user publish to fluent.dead.replays.>?";
const LOOKING: &str = "looking through what was received";

/// Largest difference of clocks that is reckoned with.
const CLOCKS_APART: Duration = Duration::from_mins(5);

/// Events that are published at once.
const TOGETHER: usize = 64;

/// Positions, each with the key by which Fluent knows the event; and the position to go on from.
type Places = (Vec<(Position, Option<FluentKey>)>, Option<Position>);

impl JetStreamStores {
    pub(crate) async fn received_in(
        &self,
        query: &ReceivedQuery,
    ) -> Result<ReceivedPage, QueueError> {
        let (found, next) = self.places_of_received(query).await?;
        let mut page = ReceivedPage {
            next,
            ..ReceivedPage::default()
        };
        let mut bytes = 0;
        for some in found.chunks(TOGETHER) {
            let events = self
                .all_at(some.iter().map(|(position, _)| *position))
                .await?;
            bytes += events
                .iter()
                .map(|(_, event)| event.body().len())
                .sum::<usize>();
            page.events.extend(events);
            if bytes >= PAGE_BYTES {
                page.next = some.last().map(|(position, _)| *position);
                break;
            }
        }
        Ok(page)
    }

    /// Reads the keys from headers; bodies are read only of events that an earlier version has
    /// stored.
    pub(crate) async fn received_keys_in(
        &self,
        query: &ReceivedQuery,
    ) -> Result<ReceivedKeys, QueueError> {
        let (found, next) = self.places_of_received(query).await?;
        let mut keys = Vec::with_capacity(found.len());
        for some in found.chunks(TOGETHER) {
            let unnamed = some
                .iter()
                .filter(|(_, key)| key.is_none())
                .map(|(position, _)| *position);
            let read = self.all_at(unnamed).await?;
            keys.extend(
                some.iter()
                    .filter_map(|(position, key)| Some((*position, (*key)?))),
            );
            keys.extend(
                read.into_iter()
                    .map(|(position, event)| (position, event.fluent_key())),
            );
        }
        keys.sort_unstable_by_key(|(position, _)| *position);
        Ok(ReceivedKeys { keys, next })
    }

    /// Reads the messages that these keys were found on, and returns the keys of those that verify
    /// and are of that event: anybody who may publish can name any key in a header.
    pub(crate) async fn genuine_keys_of(
        &self,
        keys: &[(Position, FluentKey)],
    ) -> Result<Vec<FluentKey>, QueueError> {
        let read: Vec<_> = keys
            .iter()
            .map(|(position, key)| self.is_genuine(*position, *key).boxed())
            .collect();
        let read: Vec<_> = stream::iter(read).buffered(TOGETHER).collect().await;
        let genuine: Vec<bool> = read.into_iter().collect::<Result<_, _>>()?;
        let count = genuine.iter().filter(|is_genuine| !**is_genuine).count();
        if count > 0 {
            tracing::error!(
                count,
                "messages in the stream of events name events of Fluent's and do not verify: they do not count as received"
            );
        }
        let pairs = keys.iter().zip(genuine);
        Ok(pairs
            .filter_map(|((_, key), is_genuine)| is_genuine.then_some(*key))
            .collect())
    }

    async fn is_genuine(&self, position: Position, key: FluentKey) -> Result<bool, QueueError> {
        if !self.0.verification.is_on() {
            return Ok(true);
        }
        let found = event_at(&self.0.link, position).await;
        let Some(found) = found.map_err(|error| error.of(LOOKING))? else {
            // It was removed since its key was read, which only settled events are.
            return Ok(true);
        };
        let Ok(event) = message::event(&found.headers, found.payload) else {
            return Ok(false);
        };
        let is_in_place = event.subject() == *found.subject;
        let verdict = self.0.verification.judge(&event);
        Ok(is_in_place && event.fluent_key() == key && verdict == StoredVerdict::Verified)
    }

    /// Finds the events that were received in a time, with the keys by which Fluent knows them if
    /// the headers have them; and the position to go on from. An event was stored at or after the
    /// time it was received, which only its headers say.
    async fn places_of_received(&self, query: &ReceivedQuery) -> Result<Places, QueueError> {
        let Some(shard) = Shard::of(query.after) else {
            return Ok((Vec::new(), None));
        };
        // The gateways' clocks may be ahead of the servers' clock.
        let since = query.from.checked_sub(CLOCKS_APART).unwrap_or(query.from);
        let since = (query.after == Position::START).then_some(since);
        let subject = EVENTS_SUBJECT.to_owned();
        let scan = Scan {
            stream: shard.events(),
            subject,
            from: query.after.sequence() + 1,
            since,
            headers_only: true,
        };
        let before = api::stream_info(&self.0.link, shard.events())
            .await
            .map_err(|error| error.of(LOOKING))?
            .state;
        let mut found = Vec::new();
        let mut is_stopped = false;
        let look = |stored: Stored| {
            let at = parsed::<Timestamp>(&stored.headers, HEADER_TIME).ok();
            if at.is_some_and(|at| at >= query.from && at < query.until) {
                found.push((
                    stored.sequence,
                    parsed(&stored.headers, HEADER_LOG_KEY).ok(),
                ));
            }
            is_stopped = found.len() >= query.limit;
            !is_stopped
        };
        let last = scan.each(&self.0.link, look).await?;
        // A server that is still catching up ends too soon: what it lacks is not missing.
        let newest = Timestamp::from_nanosecond(before.last_timestamp.unix_timestamp_nanos()).ok();
        let is_past = since.is_some_and(|since| newest.is_none_or(|newest| newest < since));
        let has_more =
            before.messages > 0 && before.last_sequence > query.after.sequence().max(last);
        if has_more && !is_stopped && !is_past {
            return Err(QueueError::unavailable(
                LOOKING,
                "the server that was asked is behind the others",
            ));
        }
        let placed = |(sequence, key)| Ok((shard.position(sequence)?, key));
        let found: Vec<_> = found
            .into_iter()
            .map(placed)
            .collect::<Result<_, QueueError>>()?;
        let next = found
            .last()
            .map(|(position, _)| *position)
            .filter(|_| found.len() == query.limit);
        Ok((found, next))
    }

    async fn all_at(
        &self,
        positions: impl Iterator<Item = Position>,
    ) -> Result<Vec<(Position, Event)>, QueueError> {
        let read: Vec<_> = positions
            .map(|position| self.at(position).boxed())
            .collect();
        let read: Vec<_> = stream::iter(read).buffered(TOGETHER).collect().await;
        let events: Vec<_> = read.into_iter().collect::<Result<_, _>>()?;
        Ok(events.into_iter().flatten().collect())
    }

    async fn at(&self, position: Position) -> Result<Option<(Position, Event)>, QueueError> {
        let found = event_at(&self.0.link, position).await;
        let found = found.map_err(|error| error.of("reading an event"))?;
        let event =
            found.and_then(|message| message::event(&message.headers, message.payload).ok());
        Ok(event.map(|event| (position, event)))
    }

    pub(crate) async fn replay_all(
        &self,
        route: &str,
        events: &[(Position, Event)],
        again: bool,
        mode: ReplayMode,
    ) -> Result<Vec<ReplayOutcome>, QueueError> {
        let why = "it needs an index, to know what the route is done with: set `queue.index`";
        let index = self
            .0
            .index
            .as_ref()
            .ok_or_else(|| QueueError::unavailable(REPLAYING, why))?;
        let info = match api::consumer_info(&self.0.link, Shard::ONLY.events(), route).await {
            Err(error) if error.is_missing() => {
                return Err(QueueError::NotFound(format!("route {route}")));
            }
            info => info.map_err(|error| error.of(REPLAYING))?,
        };
        self.0.note_route_epoch(&info);
        catch_up(&self.0.link, index).await?;
        let plan = ReplayScan {
            route: &info,
            settled: progress(&self.0.link, &info, u64::MAX).await?.settled,
            again,
            missing: UnrecordedAttempts::look(self).await?,
            is_preview: mode == ReplayMode::Preview,
            reserved: mode.number(),
            number: OnceCell::new_with(mode.number()),
        };
        let one = |(position, event): &'_ (Position, Event)| {
            self.replay_one(&plan, index, *position, event.clone())
                .boxed()
        };
        let each: Vec<_> = events.iter().map(one).collect();
        let replayed: Vec<_> = stream::iter(each).buffered(TOGETHER).collect().await;
        replayed.into_iter().collect()
    }

    async fn replay_one(
        &self,
        plan: &ReplayScan<'_>,
        index: &Arc<dyn HistoryIndex>,
        position: Position,
        event: Event,
    ) -> Result<ReplayOutcome, QueueError> {
        if Shard::of(position).is_none() {
            return Ok(ReplayOutcome::Gone);
        }
        let lines = lines(index, event.id(), &plan.route.name)?;
        if let Some(number) = plan.reserved
            && self
                .was_handed_over(plan, &lines, position, &event, number)
                .await?
        {
            return Ok(ReplayOutcome::HandedOver);
        }
        if let Some(left_out) = self.left_out(plan, &lines, position, event.id()).await? {
            return Ok(left_out);
        }
        if plan.is_preview {
            return Ok(ReplayOutcome::HandedOver);
        }
        let known = lines.iter().map(|line| line.redrive).max().unwrap_or(0);
        let redrive = plan.number(&self.0).await?.max(known.saturating_add(1));
        let fresh = DeliveryState {
            redrive,
            ..DeliveryState::none(position)
        };
        self.0
            .requeue(&event, &fresh, &plan.route.name, None, "replay")
            .await?;
        Ok(ReplayOutcome::HandedOver)
    }

    /// Whether an event was handed over under this number before, or a later one: it was tried, or it
    /// waits for its first attempt.
    async fn was_handed_over(
        &self,
        plan: &ReplayScan<'_>,
        lines: &[AttemptRecord],
        position: Position,
        event: &Event,
        number: u32,
    ) -> Result<bool, QueueError> {
        if lines.iter().any(|line| line.redrive >= number) {
            return Ok(true);
        }
        let fresh = DeliveryState {
            redrive: number,
            ..DeliveryState::none(position)
        };
        let subject = due(&plan.route.name, &fresh.delivery(event));
        let found = api::last_message(&self.0.link, RETRIES, &subject).await;
        Ok(found.map_err(|error| error.of(REPLAYING))?.is_some())
    }

    /// Returns the reason for which an event is not published again; `None` if it is.
    async fn left_out(
        &self,
        plan: &ReplayScan<'_>,
        lines: &[AttemptRecord],
        position: Position,
        id: EventId,
    ) -> Result<Option<ReplayOutcome>, QueueError> {
        let ReplayScan {
            route,
            settled,
            again,
            ref missing,
            ..
        } = *plan;
        let last = latest(lines.iter()).map(|line| &line.then);
        let is_done = lines.iter().any(|line| line.then == NextState::Done);
        if !again && last == Some(&NextState::Done) {
            return Ok(Some(ReplayOutcome::Done));
        }
        if self.is_on_its_way(&route.name, lines, id).await? {
            return Ok(Some(ReplayOutcome::Ahead));
        }
        let is_missing = missing.has(position, &route.name);
        Ok(match last {
            // It does not wait any more, and its last attempt may be one that is missing.
            Some(NextState::Waiting { .. } | NextState::Back)
                if is_missing && position.sequence() <= settled =>
            {
                (!again).then_some(ReplayOutcome::Unknown)
            }
            Some(NextState::Waiting { .. } | NextState::Back) => Some(ReplayOutcome::Ahead),
            None if position.sequence() > settled => Some(ReplayOutcome::Ahead),
            Some(NextState::Dead { letter, .. })
                if !again && self.has_letter(*letter, &route.name, id).await? =>
            {
                Some(ReplayOutcome::Dead)
            }
            _ if is_done && !again => Some(ReplayOutcome::Done),
            None if is_missing => (!again).then_some(ReplayOutcome::Unknown),
            _ => None,
        })
    }

    /// Whether the event waits or is due on the route. A redrive or a replay leaves no line before
    /// its first attempt.
    async fn is_on_its_way(
        &self,
        route: &str,
        lines: &[AttemptRecord],
        id: EventId,
    ) -> Result<bool, QueueError> {
        let found = on_its_way(&self.0.link, route, id).await?;
        Ok(found.iter().any(|found| !found.has_ended(lines)))
    }
}

/// Whether something is to be done, and under which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplayMode {
    Preview,
    Fresh,
    Reserved(u32),
}

impl ReplayMode {
    fn number(self) -> Option<u32> {
        match self {
            Self::Reserved(number) => Some(number),
            Self::Preview | Self::Fresh => None,
        }
    }
}

/// One replay, to one route.
struct ReplayScan<'r> {
    route: &'r Info,
    settled: u64,
    again: bool,
    missing: UnrecordedAttempts,
    /// True if nothing is to be done.
    is_preview: bool,
    /// The number that was reserved before, perhaps for a replay that was cut off.
    reserved: Option<u32>,
    number: OnceCell<u32>,
}

impl ReplayScan<'_> {
    /// The replay's number, taken when it publishes its first event.
    async fn number(&self, shared: &Shared) -> Result<u32, QueueError> {
        self.number
            .get_or_try_init(|| take_number(shared, &self.route.name))
            .await
            .copied()
    }
}

/// Takes a number that is never given twice: a position in a stream. The history would not
/// do, since it forgets how often an event was sent again.
pub(crate) async fn take_number(shared: &Shared, route: &str) -> Result<u32, QueueError> {
    let mut headers = HeaderMap::new();
    headers.insert(
        NATS_MESSAGE_ID,
        format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
    );
    let placed = shared
        .publisher
        .put(replay(route), headers, Bytes::new())
        .await;
    let placed = placed.map_err(|error| match error {
        QueueError::Unavailable { .. } => QueueError::unavailable(NUMBERING, error),
        other => other,
    })?;
    // If it stays, it is still no letter to any reader.
    let _ = api::delete_message(&shared.link, DEAD, placed.sequence).await;
    Ok(redrive_number(placed.sequence))
}

/// Returns the recorded attempts of an event on a route.
fn lines(
    index: &Arc<dyn HistoryIndex>,
    id: EventId,
    route: &str,
) -> Result<Vec<AttemptRecord>, QueueError> {
    let name = id.to_string();
    let lines = index.attempts(id)?;
    let read = lines
        .iter()
        .filter_map(|line| serde_json::from_slice::<AttemptRecord>(line).ok());
    Ok(read
        .filter(|line| line.event == name && line.route == route)
        .collect())
}
