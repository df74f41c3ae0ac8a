//! Jobs that replay what was received.

use std::collections::{BTreeMap, BTreeSet};

use event_model::Event;
use proto::v1;
use queue::{Position, QueueError, ReceivedQuery, ReplayOutcome, entity};
use telemetry::ErrorChain;

use super::{PAGE, Page, Tried, may_pass};
use crate::Operator;
use crate::jobs::items::ItemResult;
use crate::replay::ReplayPlan;

impl Operator {
    /// The events of the plan behind the position `after`, up to `up_to`.
    pub(super) async fn page_of_received(
        &self,
        plan: &ReplayPlan,
        after: u64,
        up_to: u64,
        limit: usize,
    ) -> Result<Page, QueueError> {
        if after >= up_to {
            return Ok(Page::default());
        }
        let query = ReceivedQuery {
            limit,
            ..plan.received_after(Position::from_packed(after)?)
        };
        let page = self.stores().history().received(query).await?;
        let wanted = page
            .events
            .iter()
            .filter(|(position, event)| position.packed() <= up_to && plan.takes(event));
        let items: Vec<_> = wanted
            .map(|(position, event)| item(*position, event))
            .collect();
        let last = items.last().map(|item| item.id);
        Ok(Page {
            next: page.next.map(Position::packed).or(last),
            items,
        })
    }

    /// Hands these events over, under the number of the job. One that can't be is found by
    /// halves: it fails by itself, and the others are handed over.
    pub(super) async fn try_replayed(
        &self,
        plan: &ReplayPlan,
        number: u32,
        ids: &[u64],
    ) -> Vec<Tried> {
        if ids.is_empty() {
            return Vec::new();
        }
        let events = match self.events_at(plan, ids).await {
            Ok(events) => events,
            Err(error) => return ids.iter().map(|_| of_error(&error)).collect(),
        };
        let mut tried = BTreeMap::new();
        let mut parts = vec![events.as_slice()];
        while let Some(part) = parts.pop() {
            let replay = self
                .stores()
                .replay_as(plan.route(), part, plan.again(), number);
            match replay.await {
                Ok(results) => {
                    let ended = results.iter().map(|it| Tried::Ended(of_outcome(*it)));
                    tried.extend(places(part).zip(ended));
                }
                Err(error) if may_pass(&error) && !self.has_place(&error).await => {
                    // Nothing is wrong with an event: the rest is tried when the queue is back.
                    let rest = parts.iter().copied().chain([part]).flat_map(places);
                    tried.extend(rest.map(|place| (place, of_error(&error))));
                    break;
                }
                Err(error) if part.len() <= 1 => {
                    tried.extend(places(part).map(|place| (place, of_error(&error))));
                }
                Err(_) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        // What is not stored any more has no result.
        let result = |id| tried.remove(id);
        ids.iter()
            .map(result)
            .map(|it| it.unwrap_or(Tried::Ended(ItemResult::Skipped)))
            .collect()
    }

    /// Whether the queue answers and has room, so that an error is about an event.
    async fn has_place(&self, error: &QueueError) -> bool {
        !matches!(error, QueueError::Full) && self.jobs().now().await.is_ok()
    }

    /// The events at these positions that are still stored.
    async fn events_at(
        &self,
        plan: &ReplayPlan,
        ids: &[u64],
    ) -> Result<Vec<(Position, Event)>, QueueError> {
        let wanted: BTreeSet<u64> = ids.iter().copied().collect();
        let first = wanted.first().copied().unwrap_or_default();
        let mut after = Some(Position::from_packed(first.saturating_sub(1))?);
        let mut found = Vec::with_capacity(ids.len());
        while let Some(behind) = after {
            let query = ReceivedQuery {
                limit: PAGE,
                ..plan.received_after(behind)
            };
            let page = self.stores().history().received(query).await?;
            let is_past = page
                .next
                .is_none_or(|next| Some(&next.packed()) >= wanted.last());
            after = page.next.filter(|_| !is_past);
            let events = page.events.into_iter();
            found.extend(events.filter(|(position, _)| wanted.contains(&position.packed())));
        }
        Ok(found)
    }
}

/// The positions of events, as their numbers.
fn places(events: &[(Position, Event)]) -> impl Iterator<Item = u64> {
    events.iter().map(|(position, _)| position.packed())
}

fn of_outcome(outcome: ReplayOutcome) -> ItemResult {
    match outcome {
        ReplayOutcome::HandedOver => ItemResult::Done,
        ReplayOutcome::Unknown => ItemResult::Unknown,
        _ => ItemResult::Skipped,
    }
}

fn of_error(error: &QueueError) -> Tried {
    match may_pass(error) {
        true => Tried::Again(error.duplicate()),
        false => Tried::Ended(ItemResult::Failed(ErrorChain(error).to_string())),
    }
}

fn item(position: Position, event: &Event) -> v1::JobItem {
    v1::JobItem {
        id: position.packed(),
        event_id: event.id().to_string(),
        event: queue::cut(event.name()),
        account: queue::cut(event.account()),
        entity: entity(event).unwrap_or_default(),
        occurred_at: Some(grpc::timestamp(event.stored().received_at)),
        ..v1::JobItem::default()
    }
}
