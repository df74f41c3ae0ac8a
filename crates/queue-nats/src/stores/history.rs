//! The stories of events: found in an index, or without one by reading the streams through, which
//! takes longer the more they hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::Info;
use event_model::{Event, EventId, FluentKey, Timestamp};
use futures::future::BoxFuture;
use percent_encoding::percent_decode_str;
use queue::{
    AcceptedPage, AcceptedQuery, AttemptPage, AttemptQuery, EventStory, History, HistoryIndex,
    Position, QueueError, ReceivedKeys, ReceivedPage, ReceivedQuery, StoryState, StoryStep,
};

use crate::api;
use crate::attempts::{AttemptRecord, NextState, latest};
use crate::message::{self, text};
use crate::names::{ATTEMPTS_LOG, EVENTS_SUBJECT, HEADER_FLUENT_ID, HEADER_ID, HEADER_ROOT};
use crate::stores::JetStreamStores;
use crate::stores::forgotten::{Missing, on_its_way};
use crate::stores::indexing::catch_up;
use crate::stores::routes::{routes, settled_as_counted};
use crate::stores::scan::{Scan, Stored};
use crate::streams::{ATTEMPTS, Shard, event_at};

/// Shortest prefix that is taken for the beginning of an id.
const MIN_ID: usize = 8;

impl History for JetStreamStores {
    fn find<'a>(
        &'a self,
        reference: &'a str,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<EventStory>, QueueError>> {
        Box::pin(async move {
            let (found, mut lines) = match &self.0.index {
                Some(index) => self.looked_up(index, reference, limit).await?,
                None => self.read_through(reference, limit).await?,
            };
            let monitor = RouteProgress {
                routes: routes(&self.0.link, Shard::ONLY.events()).await?,
                missing: Missing::look(self).await?,
            };
            let mut stories = Vec::new();
            for (position, id) in found.into_iter().rev() {
                let Some(event) = self.event_at(position, reference).await? else {
                    continue;
                };
                let lines = lines.remove(&id).unwrap_or_default();
                let mut story = story(&event, position, lines.clone(), &monitor);
                self.check_states(&mut story, &lines, &monitor).await?;
                stories.push(story);
            }
            Ok(stories)
        })
    }

    fn event<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Event>, QueueError>> {
        Box::pin(async move {
            let found = match &self.0.index {
                Some(index) => {
                    catch_up(&self.0.link, index).await?;
                    index
                        .find(reference, 1)?
                        .first()
                        .map(|(position, _)| *position)
                }
                None => self
                    .positions(reference, 1)
                    .await?
                    .first()
                    .map(|(position, _)| *position),
            };
            match found {
                Some(position) => self.event_at(position, reference).await,
                None => Ok(None),
            }
        })
    }

    fn accepted(&self, query: AcceptedQuery) -> BoxFuture<'_, Result<AcceptedPage, QueueError>> {
        Box::pin(async move { self.newest(&query).await })
    }

    fn attempts(&self, query: AttemptQuery) -> BoxFuture<'_, Result<AttemptPage, QueueError>> {
        Box::pin(async move { self.ended(&query).await })
    }

    fn received(&self, query: ReceivedQuery) -> BoxFuture<'_, Result<ReceivedPage, QueueError>> {
        Box::pin(async move { self.received_in(&query).await })
    }

    fn received_keys(
        &self,
        query: ReceivedQuery,
    ) -> BoxFuture<'_, Result<ReceivedKeys, QueueError>> {
        Box::pin(async move { self.received_keys_in(&query).await })
    }

    fn genuine_keys(
        &self,
        keys: Vec<(Position, FluentKey)>,
    ) -> BoxFuture<'_, Result<Vec<FluentKey>, QueueError>> {
        Box::pin(async move { self.genuine_keys_of(&keys).await })
    }

    fn complete_since(&self) -> BoxFuture<'_, Result<Timestamp, QueueError>> {
        Box::pin(async move {
            let info = api::stream_info(&self.0.link, Shard::ONLY.events()).await;
            let info = info.map_err(|error| error.of("asking since when all is kept"))?;
            let state = &info.state;
            // What was removed was stored before anything that is left, and was received before
            // that.
            let removed_until = match (state.first_sequence, state.messages) {
                (0 | 1, _) => None,
                (_, 0) => Some(state.last_timestamp),
                _ => Some(state.first_timestamp),
            };
            let since = removed_until.map_or(info.created, |until| until.max(info.created));
            Timestamp::from_nanosecond(since.unix_timestamp_nanos())
                .map_err(|error| QueueError::unavailable("asking since when all is kept", error))
        })
    }

    fn catch_up(&self) -> BoxFuture<'_, Result<bool, QueueError>> {
        Box::pin(async move {
            let Some(index) = &self.0.index else {
                return Ok(false);
            };
            catch_up(&self.0.link, index).await.map(|()| true)
        })
    }
}

/// Events by their position, oldest first, and every attempt of each.
type StoredLines = (
    Vec<(Position, String)>,
    BTreeMap<String, Vec<AttemptRecord>>,
);

impl JetStreamStores {
    /// Corrects the states by where the event is: the history has no line of a redrive or a replay
    /// before its first attempt, none of a letter that was discarded, and may have forgotten more.
    async fn check_states(
        &self,
        story: &mut EventStory,
        lines: &[AttemptRecord],
        monitor: &RouteProgress,
    ) -> Result<(), QueueError> {
        let is_done = |state: &StoryState| matches!(state, StoryState::Done { .. });
        if story.states.iter().all(is_done) {
            return Ok(());
        }
        let found = on_its_way(&self.0.link, "*", story.id).await?;
        let position = story.position;
        for state in story.states.iter_mut().filter(|state| !is_done(state)) {
            let route = state.route().to_owned();
            let found = found
                .iter()
                .find(|found| found.route == route && !found.has_ended(lines));
            if let Some(found) = found {
                *state = found.state(&self.0.link).await?;
            } else if let StoryState::Dead { letter, .. } = state
                && !self.has_letter(*letter, &route, story.id).await?
            {
                *state = StoryState::Unknown { route };
            } else if is_waiting(state) && monitor.has_settled(&route, position) {
                *state = StoryState::Unknown { route };
            }
        }
        Ok(())
    }

    async fn looked_up(
        &self,
        index: &Arc<dyn HistoryIndex>,
        reference: &str,
        limit: usize,
    ) -> Result<StoredLines, QueueError> {
        catch_up(&self.0.link, index).await?;
        let mut found = Vec::new();
        let mut lines = BTreeMap::new();
        for (position, id) in index.find(reference, limit)?.into_iter().rev() {
            let of_event = index.attempts(id)?;
            let read = of_event
                .iter()
                .filter_map(|line| serde_json::from_slice::<AttemptRecord>(line).ok());
            lines.insert(
                id.to_string(),
                read.filter(|line| line.event == id.to_string()).collect(),
            );
            found.push((position, id.to_string()));
        }
        Ok((found, lines))
    }

    async fn read_through(&self, reference: &str, limit: usize) -> Result<StoredLines, QueueError> {
        let found = self.positions(reference, limit).await?;
        let lines = self.lines(&found).await?;
        Ok((found, lines))
    }

    /// Returns the newest `limit` events that `reference` names, oldest first.
    async fn positions(
        &self,
        reference: &str,
        limit: usize,
    ) -> Result<Vec<(Position, String)>, QueueError> {
        let scan = Scan {
            stream: Shard::ONLY.events(),
            subject: EVENTS_SUBJECT.to_owned(),
            from: 1,
            since: None,
            headers_only: true,
        };
        let mut found = std::collections::VecDeque::new();
        let look = |stored: Stored| {
            if is_named(&stored.headers, reference) {
                let id = text(&stored.headers, HEADER_ID)
                    .unwrap_or_default()
                    .to_owned();
                found.push_back((stored.sequence, id));
            }
            if found.len() > limit {
                found.pop_front();
            }
            true
        };
        scan.each(&self.0.link, look).await?;
        let placed = found
            .into_iter()
            .map(|(sequence, id)| Ok((Shard::ONLY.position(sequence)?, id)));
        placed.collect()
    }

    async fn lines(
        &self,
        found: &[(Position, String)],
    ) -> Result<BTreeMap<String, Vec<AttemptRecord>>, QueueError> {
        let mut lines: BTreeMap<String, Vec<AttemptRecord>> = found
            .iter()
            .map(|(_, id)| (id.clone(), Vec::new()))
            .collect();
        if lines.is_empty() {
            return Ok(lines);
        }
        let scan = Scan {
            stream: ATTEMPTS,
            subject: ATTEMPTS_LOG.to_owned(),
            from: 1,
            since: None,
            headers_only: false,
        };
        let look = |stored: Stored| {
            let group = stored
                .body
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty());
            for line in group.filter_map(|line| serde_json::from_slice::<AttemptRecord>(line).ok())
            {
                if let Some(lines) = lines.get_mut(&line.event) {
                    lines.push(line);
                }
            }
            true
        };
        scan.each(&self.0.link, look).await?;
        Ok(lines)
    }

    /// Returns the event at `position`, if `reference` names it.
    async fn event_at(
        &self,
        position: Position,
        reference: &str,
    ) -> Result<Option<Event>, QueueError> {
        let found = event_at(&self.0.link, position).await;
        let found = found.map_err(|error| error.of("reading an event"))?;
        let named = found.filter(|message| is_named(&message.headers, reference));
        Ok(named.and_then(|message| message::event(&message.headers, message.payload).ok()))
    }
}

fn is_named(headers: &HeaderMap, reference: &str) -> bool {
    let is_entity = |name: &'static str| {
        text(headers, name).is_some_and(|value| {
            let entity = percent_decode_str(value).decode_utf8_lossy();
            entity
                .split_once('/')
                .is_some_and(|(_, found)| found == reference)
        })
    };
    let is_id = reference.len() >= MIN_ID
        && text(headers, HEADER_ID)
            .is_some_and(|id: &str| id.parse::<EventId>().is_ok() && id.starts_with(reference));
    let is_fluents = text(headers, HEADER_FLUENT_ID)
        .is_some_and(|id| percent_decode_str(id).decode_utf8_lossy() == reference);
    is_id || is_fluents || is_entity("ce-subject") || is_entity(HEADER_ROOT)
}

/// Progress of the routes, and the part of their history that is missing.
struct RouteProgress {
    routes: Vec<Info>,
    missing: Missing,
}

impl RouteProgress {
    /// Whether a route is done with an event of which attempts there may be missing, as far as the
    /// events themselves say it.
    fn has_settled(&self, route: &str, position: Position) -> bool {
        let info = self.routes.iter().find(|info| info.name == route);
        info.is_some_and(|info| position.sequence() <= settled_as_counted(info))
            && self.missing.has(position, route)
    }
}

/// Whether the history says that the delivery goes on.
fn is_waiting(state: &StoryState) -> bool {
    matches!(
        state,
        StoryState::Waiting { .. } | StoryState::InFlight { .. }
    )
}

fn story(
    event: &Event,
    position: Position,
    mut lines: Vec<AttemptRecord>,
    monitor: &RouteProgress,
) -> EventStory {
    lines.sort_by_key(|line| (line.started_at, line.attempt));
    let missing = &monitor.missing;
    let begins = missing.horizon.filter(|horizon| horizon.has(position));
    let of_route = |route: &Info| {
        let is_missing = missing.has(position, &route.name);
        state(route, position.sequence(), &lines, is_missing)
    };
    let states = monitor.routes.iter().map(of_route).collect();
    let step = |line: AttemptRecord| StoryStep {
        record: line.attempt(),
        route: line.route,
        redrive: line.redrive,
        attempt: line.attempt,
    };
    EventStory {
        id: event.id(),
        position,
        name: event.name().to_owned(),
        fluent_event_id: event.fields().fluent_event_id.clone().unwrap_or_default(),
        fluent_key: event.fluent_key(),
        entity: queue::entity(event),
        source: event.source(),
        received_at: event.received_at(),
        origin: event.origin(),
        trace_id: event.trace().map(|trace| trace.trace_id()),
        history_since: begins.map(|horizon| horizon.until),
        gaps: missing.gaps(position),
        steps: lines.into_iter().map(step).collect(),
        states,
    }
}

/// Returns the latest state of an event on a route, by its attempts, of which some may be missing.
fn state(info: &Info, sequence: u64, lines: &[AttemptRecord], is_missing: bool) -> StoryState {
    let route = info.name.clone();
    let last = latest(lines.iter().filter(|line| line.route == route));
    match last.map(|line| &line.then) {
        Some(NextState::Done) => StoryState::Done { route },
        Some(NextState::Waiting { due }) => StoryState::Waiting { route, due: *due },
        Some(NextState::Dead { letter, reason }) => StoryState::Dead {
            route,
            letter: *letter,
            reason: *reason,
        },
        Some(NextState::Back) => StoryState::InFlight { route },
        None if sequence <= info.delivered.stream_sequence
            && sequence > info.ack_floor.stream_sequence =>
        {
            StoryState::InFlight { route }
        }
        None if is_missing && sequence <= settled_as_counted(info) => StoryState::Unknown { route },
        None => StoryState::NotReached { route },
    }
}
