//! What the history does not have: the oldest attempts are removed when their time or their room
//! is up, and others could not be recorded.

use std::collections::{BTreeMap, BTreeSet};

use event_model::{EventId, Timestamp};
use queue::{HistoryGap, LostAttempts, Position, QueueError, StoryGap, StoryState, history_gaps};
use serde_json::json;

use crate::api;
use crate::attempts::{AttemptRecord, NextState};
use crate::connect::NatsConnection;
use crate::message::text;
use crate::names::{EVENTS_SUBJECT, due, waiting};
use crate::stores::JetStreamStores;
use crate::streams::{ATTEMPTS, RETRIES, Shard};

const LOOKING: &str = "looking where the history begins";

/// The part of the history that is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HistoryHorizon {
    /// Every attempt since this time is kept.
    pub(crate) until: Timestamp,
    /// Every attempt of events from this position on is kept: they came later.
    before: Position,
}

impl HistoryHorizon {
    /// Finds where the history begins; `None` if that is before the oldest event.
    pub(crate) async fn look(link: &NatsConnection) -> Result<Option<Self>, QueueError> {
        let until = history_begins(link).await?;
        let before = first_since(link, until).await?;
        Ok(before.map(|before| Self { until, before }))
    }

    /// Whether attempts of the event at this position may be gone.
    pub(crate) fn has(&self, position: Position) -> bool {
        position < self.before
    }
}

/// Returns the time since which every attempt that was recorded is kept.
pub(crate) async fn history_begins(link: &NatsConnection) -> Result<Timestamp, QueueError> {
    let attempts = api::stream_info(link, ATTEMPTS)
        .await
        .map_err(|error| error.of(LOOKING))?;
    let state = &attempts.state;
    let until = match (state.first_sequence, state.messages) {
        (0 | 1, _) => attempts.created,
        // All are gone: the last was written then.
        (_, 0) => state.last_timestamp.max(attempts.created),
        _ => state.first_timestamp.max(attempts.created),
    };
    let until = Timestamp::from_nanosecond(until.unix_timestamp_nanos());
    until.map_err(|error| QueueError::unavailable(LOOKING, error))
}

/// What is known to be missing in the history: what it no longer has, and what could not be
/// recorded.
#[derive(Debug)]
pub(crate) struct UnrecordedAttempts {
    pub(crate) horizon: Option<HistoryHorizon>,
    gaps: Vec<(StoryGap, LostOf)>,
}

/// The events whose attempts a gap has cost.
#[derive(Clone, Copy, Debug)]
enum LostOf {
    Known(LostAttempts),
    /// Any that were stored before this position: the process ended before it could say more.
    Before(Position),
}

impl UnrecordedAttempts {
    pub(crate) async fn look(stores: &JetStreamStores) -> Result<Self, QueueError> {
        let link = &stores.0.link;
        let horizon = HistoryHorizon::look(link).await?;
        let is_kept = |gap: &HistoryGap| horizon.is_none_or(|horizon| gap.until >= horizon.until);
        let mut all = Vec::new();
        for (route, gaps) in history_gaps(stores).await? {
            let kept = gaps.into_iter().filter(is_kept);
            all.extend(kept.map(|gap| (route.clone(), gap)));
        }
        let unsaid = all.iter().filter(|(_, gap)| gap.lost.is_none());
        let mut before = BTreeMap::new();
        for group in grouped(unsaid.map(|(_, gap)| gap.until).collect()) {
            let Some(last) = group.last() else { continue };
            let found = first_since(link, *last).await?;
            let found = found.unwrap_or(Position::START);
            before.extend(group.into_iter().map(|until| (until, found)));
        }
        let mut known = Vec::new();
        for (route, gap) in all {
            let lost_of = gap.lost.map(LostOf::Known).or_else(|| {
                let before = before.get(&gap.until).copied();
                before.map(LostOf::Before)
            });
            if let Some(lost_of) = lost_of {
                let gap = StoryGap {
                    route: route.clone(),
                    since: gap.since,
                    until: gap.until,
                };
                known.push((gap, lost_of));
            }
        }
        Ok(Self {
            horizon,
            gaps: known,
        })
    }

    /// Whether attempts of the event at this position on this route may be missing.
    pub(crate) fn has(&self, position: Position, route: &str) -> bool {
        self.horizon.is_some_and(|horizon| horizon.has(position))
            || self.of(position).any(|gap| gap.route == route)
    }

    /// The gaps that concern the event at this position.
    pub(crate) fn gaps(&self, position: Position) -> Vec<StoryGap> {
        self.of(position).cloned().collect()
    }

    fn of(&self, position: Position) -> impl Iterator<Item = &StoryGap> {
        let concerning = self.gaps.iter().filter(move |(_, lost_of)| match lost_of {
            LostOf::Known(lost) => lost.may_have(position),
            LostOf::Before(before) => position < *before,
        });
        concerning.map(|(gap, _)| gap)
    }
}

/// Most times whose position is looked for in the stream: each takes some thirty requests.
const LOOKED_FOR: usize = 16;

/// Puts these times together with later ones, so that there are no more groups than that. Of a
/// group the last is looked for: that may say too much of what is missing, and never too little.
fn grouped(times: BTreeSet<Timestamp>) -> Vec<Vec<Timestamp>> {
    let times: Vec<_> = times.into_iter().collect();
    let together = times.len().div_ceil(LOOKED_FOR).max(1);
    times.chunks(together).map(<[Timestamp]>::to_vec).collect()
}

/// Finds, by bisection, the position of the first event that was stored at this time or later;
/// `None` if all of them were.
async fn first_since(
    link: &NatsConnection,
    since: Timestamp,
) -> Result<Option<Position>, QueueError> {
    let state = api::stream_info(link, Shard::ONLY.events())
        .await
        .map_err(|error| error.of(LOOKING))?
        .state;
    let since = since.as_nanosecond();
    if state.messages == 0 || state.first_timestamp.unix_timestamp_nanos() >= since {
        return Ok(None);
    }
    let mut low = state.first_sequence;
    let mut high = state.last_sequence + 1;
    while low < high {
        let middle = low + (high - low) / 2;
        let request = json!({ "seq": middle, "next_by_subj": EVENTS_SUBJECT });
        let found = api::get_message(link, Shard::ONLY.events(), &request).await;
        match found.map_err(|error| error.of(LOOKING))? {
            Some(message) if message.time.unix_timestamp_nanos() < since => {
                low = message.sequence + 1
            }
            _ => high = middle,
        }
    }
    Ok(Some(Shard::ONLY.position(low)?))
}

/// A delivery of an event that lies among the retries.
#[derive(Debug)]
pub(crate) struct OnItsWay {
    pub(crate) route: String,
    pub(crate) redrive: u32,
    subject: String,
}

impl OnItsWay {
    /// Whether the history says that it has ended: then only its removal is on its way.
    pub(crate) fn has_ended<'l>(&self, lines: impl IntoIterator<Item = &'l AttemptRecord>) -> bool {
        lines.into_iter().any(|line| {
            let has_ended = matches!(line.then, NextState::Done | NextState::Dead { .. });
            has_ended && line.route == self.route && line.redrive == self.redrive
        })
    }

    /// Reads whether it waits or is due.
    pub(crate) async fn state(&self, link: &NatsConnection) -> Result<StoryState, QueueError> {
        stands(link, &self.subject, self.route.clone()).await
    }
}

/// Finds the deliveries of an event that wait or are due, whatever the history says; `route` may
/// be `*`.
pub(crate) async fn on_its_way(
    link: &NatsConnection,
    route: &str,
    id: EventId,
) -> Result<Vec<OnItsWay>, QueueError> {
    let delivery = format!("{id}.*");
    let mut found = Vec::new();
    for filter in [due(route, &delivery), waiting(route, &delivery)] {
        let subjects = api::subjects(link, RETRIES, &filter)
            .await
            .map_err(|error| error.of(LOOKING))?;
        found.extend(subjects.into_iter().filter_map(|(subject, _)| {
            Some(OnItsWay {
                route: subject.split('.').nth(3)?.to_owned(),
                redrive: subject.rsplit('.').next()?.parse().ok()?,
                subject,
            })
        }));
    }
    Ok(found)
}

async fn stands(
    link: &NatsConnection,
    subject: &str,
    route: String,
) -> Result<StoryState, QueueError> {
    let message = api::last_message(link, RETRIES, subject)
        .await
        .map_err(|error| error.of(LOOKING))?;
    let schedule = message
        .as_ref()
        .and_then(|message| text(&message.headers, "Nats-Schedule"));
    let due = schedule.and_then(|at| at.strip_prefix("@at ")?.parse().ok());
    Ok(due.map_or(
        StoryState::InFlight {
            route: route.clone(),
        },
        |due| StoryState::Waiting { route, due },
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn many_gaps_are_looked_for_as_few() {
        let times = |count: u64| -> BTreeSet<_> {
            (0..count)
                .map(|second| Timestamp::UNIX_EPOCH + Duration::from_secs(second))
                .collect()
        };
        for (count, groups) in [(0, 0), (1, 1), (16, 16), (17, 9), (1_000, 16)] {
            let grouped = grouped(times(count));
            assert_eq!(grouped.len(), groups, "of {count}");
            assert!(grouped.concat().into_iter().eq(times(count)));
        }
    }
}
