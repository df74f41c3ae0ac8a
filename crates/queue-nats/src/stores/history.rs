//! The stories of events: found in an index, or without one by reading the streams through, which
//! takes longer the more they hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::Info;
use event_model::{Event, EventId, FluentKey, Timestamp};
use futures::future::{BoxFuture, try_join};
use percent_encoding::percent_decode_str;
use queue::{
    AcceptedPage, AcceptedQuery, AttemptPage, AttemptQuery, EventStory, History, HistoryIndex,
    Position, QueueError, ReceivedKeys, ReceivedPage, ReceivedQuery, SAME_IDS_SHOWN, SameIdEvent,
    StoryPage, StoryState, StoryStep,
};

use crate::api;
use crate::attempts::{AttemptRecord, NextState, latest};
use crate::message::{self, text};
use crate::names::{ATTEMPTS_LOG, EVENTS_SUBJECT, HEADER_FLUENT_ID, HEADER_ID, HEADER_ROOT};
use crate::stores::JetStreamStores;
use crate::stores::forgotten::{UnrecordedAttempts, on_its_way};
use crate::stores::indexing::catch_up;
use crate::stores::routes::{routes, settled_as_counted};
use crate::stores::scan::{Scan, Stored};
use crate::streams::{ATTEMPTS, Shard, event_at};

/// Shortest prefix that is taken for the beginning of an id.
const MIN_ID: usize = 8;

impl History for JetStreamStores {
    fn find_before<'a>(
        &'a self,
        reference: &'a str,
        before: Option<Position>,
        limit: usize,
    ) -> BoxFuture<'a, Result<StoryPage, QueueError>> {
        Box::pin(async move {
            let Found {
                positions,
                mut lines,
                same_id,
            } = match &self.0.index {
                Some(index) => self.looked_up(index, reference, before, limit).await?,
                None => self.read_through(reference, before, limit).await?,
            };
            let monitor = RouteProgress {
                routes: routes(&self.0.link, Shard::ONLY.events()).await?,
                missing: UnrecordedAttempts::look(self).await?,
            };
            let mut page = StoryPage {
                next: next(&positions, limit),
                ..StoryPage::default()
            };
            for (position, id) in positions.into_iter().rev() {
                let event = match self.named_event(position, reference).await? {
                    ReadEvent::Whole(event) => event,
                    ReadEvent::Unreadable => {
                        page.unreadable += 1;
                        continue;
                    }
                    ReadEvent::NotNamed => continue,
                };
                let lines = lines.remove(&id).unwrap_or_default();
                let mut story = story(&event, position, lines.clone(), &monitor);
                self.check_states(&mut story, &lines, &monitor).await?;
                if let Some(others) = same_id.get(&story.fluent_event_id) {
                    story.same_id = self.same_id_events(&story, others).await?;
                }
                page.stories.push(story);
            }
            Ok(page)
        })
    }

    fn event_at(&self, position: Position) -> BoxFuture<'_, Result<Option<Event>, QueueError>> {
        Box::pin(self.stored_event(position))
    }

    fn event<'a>(&'a self, reference: &'a str) -> BoxFuture<'a, Result<Option<Event>, QueueError>> {
        Box::pin(async move {
            if let Some(index) = &self.0.index {
                catch_up(&self.0.link, index).await?;
            }
            let mut before = None;
            loop {
                let positions = self.newest_named(reference, before).await?;
                for position in &positions {
                    let read = self.named_event(*position, reference).await?;
                    if let ReadEvent::Whole(event) = read {
                        return Ok(Some(*event));
                    }
                }
                if positions.len() < READ_TOGETHER {
                    return Ok(None);
                }
                before = positions.last().copied();
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

/// Positions looked up at once to find an event that can be read.
const READ_TOGETHER: usize = 8;

/// The position before which the next page begins, by those of this page, oldest first.
fn next(positions: &[(Position, String)], limit: usize) -> Option<Position> {
    let oldest = positions.first().map(|(position, _)| *position);
    oldest.filter(|_| positions.len() == limit)
}

/// What was read at a position that a reference was found at.
enum ReadEvent {
    Whole(Box<Event>),
    /// It is there, and its content is damaged.
    Unreadable,
    /// It is not there any more, or the reference does not name it.
    NotNamed,
}

/// Events that a reference names, and what is stored beside them.
struct Found {
    /// Their positions and ids, oldest first.
    positions: Vec<(Position, String)>,
    /// Every attempt, by the event's id.
    lines: BTreeMap<String, Vec<AttemptRecord>>,
    /// Positions of events that may be others of the same id, by Fluent's id.
    same_id: BTreeMap<String, Vec<Position>>,
}

/// An event as its headers tell it.
struct Named {
    position: Position,
    id: String,
    fluent: String,
}

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
        before: Option<Position>,
        limit: usize,
    ) -> Result<Found, QueueError> {
        catch_up(&self.0.link, index).await?;
        let mut positions = Vec::new();
        let mut lines = BTreeMap::new();
        let mut same_id = BTreeMap::new();
        for (position, id) in index.find(reference, before, limit)?.into_iter().rev() {
            let of_event = index.attempts(id)?;
            let read = of_event
                .iter()
                .filter_map(|line| serde_json::from_slice::<AttemptRecord>(line).ok());
            lines.insert(
                id.to_string(),
                read.filter(|line| line.event == id.to_string()).collect(),
            );
            positions.push((position, id.to_string()));
        }
        for (position, _) in positions.iter().rev().take(SAME_IDS_SHOWN) {
            let event = self.stored_event(*position).await?;
            let fluent = event.and_then(|event| event.fields().fluent_event_id.clone());
            if let Some(fluent) = fluent {
                let others = index.find(&fluent, None, SAME_IDS_SHOWN + 1)?;
                let others = others.into_iter().map(|(position, _)| position);
                same_id.insert(fluent, others.collect());
            }
        }
        Ok(Found {
            positions,
            lines,
            same_id,
        })
    }

    async fn read_through(
        &self,
        reference: &str,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Found, QueueError> {
        let named = self.positions(reference, before, limit).await?;
        let newest = named.iter().rev().take(SAME_IDS_SHOWN);
        let fluent = newest.map(|named| named.fluent.clone());
        let fluent = fluent.filter(|fluent| !fluent.is_empty()).collect();
        let positions: Vec<_> = named
            .into_iter()
            .map(|named| (named.position, named.id))
            .collect();
        // Both streams at once: each is read from end to end.
        let (lines, same_id) = try_join(self.lines(&positions), self.same_id(fluent)).await?;
        Ok(Found {
            positions,
            lines,
            same_id,
        })
    }

    /// Returns the positions of the newest events that `reference` names, newest first.
    async fn newest_named(
        &self,
        reference: &str,
        before: Option<Position>,
    ) -> Result<Vec<Position>, QueueError> {
        if let Some(index) = &self.0.index {
            let found = index.find(reference, before, READ_TOGETHER)?;
            return Ok(found.into_iter().map(|(position, _)| position).collect());
        }
        let found = self.positions(reference, before, READ_TOGETHER).await?;
        Ok(found.iter().rev().map(|named| named.position).collect())
    }

    /// Returns the newest `limit` events that `reference` names, oldest first.
    async fn positions(
        &self,
        reference: &str,
        before: Option<Position>,
        limit: usize,
    ) -> Result<Vec<Named>, QueueError> {
        let before = before.map_or(u64::MAX, Position::sequence);
        let mut found = VecDeque::new();
        let look = |stored: Stored| {
            let is_behind = stored.sequence >= before;
            if !is_behind && is_named(&stored.headers, reference) {
                let id = text(&stored.headers, HEADER_ID).unwrap_or_default();
                found.push_back((stored.sequence, id.to_owned(), fluent_id(&stored.headers)));
            }
            if found.len() > limit {
                found.pop_front();
            }
            !is_behind
        };
        events_by_headers().each(&self.0.link, look).await?;
        let named = found.into_iter().map(|(sequence, id, fluent)| {
            Ok(Named {
                position: Shard::ONLY.position(sequence)?,
                id,
                fluent,
            })
        });
        named.collect()
    }

    /// Positions of the newest events that have one of these ids of Fluent's.
    async fn same_id(
        &self,
        fluent: BTreeSet<String>,
    ) -> Result<BTreeMap<String, Vec<Position>>, QueueError> {
        let mut found: BTreeMap<String, VecDeque<u64>> = BTreeMap::new();
        if fluent.is_empty() {
            return Ok(BTreeMap::new());
        }
        let look = |stored: Stored| {
            let id = fluent_id(&stored.headers);
            if fluent.contains(&id) {
                let of_id = found.entry(id).or_default();
                of_id.push_back(stored.sequence);
                // One more, since the event itself is among them.
                if of_id.len() > SAME_IDS_SHOWN + 1 {
                    of_id.pop_front();
                }
            }
            true
        };
        events_by_headers().each(&self.0.link, look).await?;
        let placed = found.into_iter().map(|(id, sequences)| {
            let places = sequences
                .into_iter()
                .rev()
                .map(|it| Shard::ONLY.position(it));
            Ok((id, places.collect::<Result<_, _>>()?))
        });
        placed.collect()
    }

    /// The events at these positions that have the key of a story, and are others.
    async fn same_id_events(
        &self,
        story: &EventStory,
        places: &[Position],
    ) -> Result<Vec<SameIdEvent>, QueueError> {
        let mut others = Vec::new();
        for place in places.iter().filter(|place| **place != story.position) {
            let event = self.stored_event(*place).await?;
            let is_same = |event: &Event| event.fluent_key() == story.fluent_key;
            others.extend(event.filter(is_same).as_ref().map(SameIdEvent::of));
        }
        Ok(others)
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

    /// Reads the event at `position`, if `reference` names it.
    async fn named_event(
        &self,
        position: Position,
        reference: &str,
    ) -> Result<ReadEvent, QueueError> {
        let found = event_at(&self.0.link, position).await;
        let found = found.map_err(|error| error.of("reading an event"))?;
        let named = found.filter(|message| is_named(&message.headers, reference));
        let Some(message) = named else {
            return Ok(ReadEvent::NotNamed);
        };
        let event = message::event(&message.headers, message.payload);
        Ok(event.map_or(ReadEvent::Unreadable, |event| {
            ReadEvent::Whole(event.into())
        }))
    }

    async fn stored_event(&self, position: Position) -> Result<Option<Event>, QueueError> {
        let found = event_at(&self.0.link, position).await;
        let found = found.map_err(|error| error.of("reading an event"))?;
        Ok(found.and_then(|message| message::event(&message.headers, message.payload).ok()))
    }
}

/// Every event, without its body.
fn events_by_headers() -> Scan {
    Scan {
        stream: Shard::ONLY.events(),
        subject: EVENTS_SUBJECT.to_owned(),
        from: 1,
        since: None,
        headers_only: true,
    }
}

/// Fluent's own id of an event; empty if its headers have none.
fn fluent_id(headers: &HeaderMap) -> String {
    let encoded = text(headers, HEADER_FLUENT_ID).unwrap_or_default();
    percent_decode_str(encoded).decode_utf8_lossy().into_owned()
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
    missing: UnrecordedAttempts,
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
        same_id: Vec::new(),
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
