//! The marker of an attempt that began. The server counts how often it sent a message, and often
//! no attempt came of that: messages that were on their way when a connection broke, or that were
//! refused or given back. With the marker, a crash is counted only for deliveries that were being
//! attempted.
//!
//! Markers are in a stream in memory: if all servers lose it at once, the count of a crash is
//! lost, and no delivery. Exclusive attempts are marked durably instead.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use event_model::{Event, Timestamp};
use queue::QueueError;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::api;
use crate::cluster::make_inflight;
use crate::consuming::delivery_state::DeliveryState;
use crate::names::inflight;
use crate::shared::{Origin, Shared};
use crate::streams::{INFLIGHT, StreamName};

/// Longest time that handing out waits for its markers. A stream that can't be written must not
/// stop deliveries: they go on without a marker, and a crash of theirs is not counted.
const MARKED_WITHIN: Duration = Duration::from_secs(2);

/// Time for which nobody waits for markers after they could not be written.
const NOT_WAITED_FOR: Duration = Duration::from_secs(10);

/// Markers of messages that lie next to each other are written together: so many sequences of a
/// stream share a subject, since every message costs the server the same.
const BLOCK: u64 = 64;

/// Most markers that are read for one message: the stream keeps no more of a subject.
pub(crate) const OF_BLOCK: i64 = 256;

/// Last known state of an attempt.
#[derive(Clone, Debug)]
pub(crate) struct InFlightMarker {
    /// Identifies the process.
    instance: u64,
    entry: Entry,
}

/// Markers that one process wrote together. Only this crate reads their stream.
#[derive(Debug, Serialize, Deserialize)]
struct Group {
    /// Epoch of the stream of events: in another, the same sequence is another event.
    epoch: String,
    instance: u64,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    sequence: u64,
    event: String,
    /// Includes this attempt.
    attempts: u32,
    /// Crashes before this attempt.
    deaths: u32,
    /// By the servers' clock.
    first_attempt_at: Timestamp,
    state: AttemptState,
}

/// State of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AttemptState {
    /// It began. Read of another process's attempt, this means a crash.
    Began,
    /// It was cut off, and does not count as an attempt.
    Returned,
    /// It ended, and could not be settled.
    Ended,
}

impl InFlightMarker {
    /// Makes the marker of `past`'s last attempt, by this process.
    pub(crate) fn new(
        shared: &Shared,
        origin: Origin,
        event: &Event,
        past: &DeliveryState,
        state: AttemptState,
    ) -> Self {
        let entry = Entry {
            sequence: origin.sequence,
            event: event.id().to_string(),
            attempts: past.attempts,
            deaths: past.deaths,
            first_attempt_at: past
                .first_attempt_at
                .unwrap_or_else(|| shared.monitor.servers_now()),
            state,
        };
        Self {
            instance: shared.instance,
            entry,
        }
    }

    /// Returns the last marker of message `origin` on `route`.
    pub(crate) async fn read(
        shared: &Shared,
        route: &str,
        origin: Origin,
        event: &Event,
    ) -> Result<Option<Self>, QueueError> {
        let subject = inflight(route, origin.stream, origin.sequence / BLOCK);
        let epoch = shared.monitor.epoch().await?;
        let event = event.id().to_string();
        let mut last = None;
        let mut from = 1;
        for _ in 0..OF_BLOCK {
            let request = json!({ "seq": from, "next_by_subj": subject });
            let found = api::get_message(&shared.link, INFLIGHT, &request).await;
            let found = found.map_err(|error| error.of("looking for the mark of an attempt"))?;
            let Some(found) = found else { break };
            from = found.sequence + 1;
            let group = serde_json::from_slice::<Group>(&found.payload).ok();
            let Some(group) = group.filter(|group| group.epoch == epoch) else {
                continue;
            };
            let is_it = |entry: &Entry| entry.sequence == origin.sequence && entry.event == event;
            let entry = group.entries.into_iter().rfind(is_it);
            last = entry
                .map(|entry| Self {
                    instance: group.instance,
                    entry,
                })
                .or(last);
        }
        Ok(last)
    }

    /// Whether the attempt's process crashed or hung: nothing more was heard of the attempt.
    /// Never true of this process, whatever became of its lease.
    pub(crate) fn is_crash(&self, shared: &Shared) -> bool {
        self.entry.state == AttemptState::Began && self.instance != shared.instance
    }

    /// Returns the state of the delivery before the next attempt.
    pub(crate) fn goes_on(&self, past: DeliveryState, shared: &Shared) -> DeliveryState {
        let attempts = match self.entry.state {
            AttemptState::Returned => self.entry.attempts.saturating_sub(1),
            AttemptState::Began | AttemptState::Ended => self.entry.attempts,
        };
        let deaths = self.entry.deaths + u32::from(self.is_crash(shared));
        let first_attempt_at = Some(self.entry.first_attempt_at).filter(|_| attempts > 0);
        DeliveryState {
            attempts,
            deaths,
            first_attempt_at,
            ..past
        }
    }
}

/// Returns the messages with these markers, one for each block of a stream.
fn messages(
    shared: &Shared,
    route: &str,
    markers: Vec<(Origin, InFlightMarker)>,
) -> Vec<(String, Bytes)> {
    let mut blocks: BTreeMap<(StreamName, u64), Vec<Entry>> = BTreeMap::new();
    for (origin, mark) in markers {
        blocks
            .entry((origin.stream, origin.sequence / BLOCK))
            .or_default()
            .push(mark.entry);
    }
    let epoch = shared.monitor.known_epoch().unwrap_or_default();
    let message = |((stream, block), entries)| {
        let group = Group {
            epoch: epoch.clone(),
            instance: shared.instance,
            entries,
        };
        // Strings and numbers always have a form in JSON.
        let body = serde_json::to_vec(&group).unwrap_or_default();
        (inflight(route, stream, block), Bytes::from(body))
    };
    blocks.into_iter().map(message).collect()
}

/// Writes markers.
#[derive(Debug, Default)]
pub(crate) struct InFlightWriter {
    failed_at: Mutex<Option<Instant>>,
}

impl InFlightWriter {
    /// Writes markers of one route, and waits for that as long as it may.
    pub(crate) async fn write(
        &self,
        shared: &Shared,
        route: &str,
        markers: Vec<(Origin, InFlightMarker)>,
    ) {
        let messages = messages(shared, route, markers);
        let within = if self.is_failing() {
            Duration::ZERO
        } else {
            MARKED_WITHIN
        };
        let writing = async {
            match shared.publisher.put_together(messages.clone()).await {
                Ok(()) => Ok(()),
                // Its server may have restarted, and lost the stream.
                Err(_) => {
                    make_inflight(&shared.link, shared.monitor.layout()).await?;
                    shared.publisher.put_together(messages).await
                }
            }
        };
        let written = timeout(within, writing).await;
        let error = match written {
            Ok(Ok(())) => return self.note(None),
            Ok(Err(error)) => error.to_string(),
            // Nobody knows whether it was sent, and nobody waits for it now.
            Err(_) if within.is_zero() => return,
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::error!(
            route,
            error,
            "it can't be marked that attempts begin: if they kill a process, that is not counted"
        );
        self.note(Some(Instant::now()));
    }

    fn is_failing(&self) -> bool {
        let failed = *self
            .failed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|at| at.elapsed() < NOT_WAITED_FOR)
    }

    fn note(&self, failed_at: Option<Instant>) {
        *self
            .failed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = failed_at;
    }
}
