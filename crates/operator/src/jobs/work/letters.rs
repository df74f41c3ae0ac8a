//! Jobs about dead letters.

use std::collections::HashSet;

use proto::v1;
use queue::{DeadLetter, DeadQuery, QueueError, entity};

use super::{PAGE, Page, Tried, tried};
use crate::Operator;

impl Operator {
    /// The letters behind `after`, up to `up_to`.
    pub(super) async fn page_of_letters(
        &self,
        query: &DeadQuery,
        after: u64,
        up_to: u64,
        limit: usize,
    ) -> Result<Page, QueueError> {
        let query = DeadQuery {
            after,
            up_to: query.up_to.min(up_to),
            limit,
            ..query.clone()
        };
        let found = self.stores().dead_letters().list(query).await?;
        Ok(Page {
            next: found.last().map(|letter| letter.id),
            items: found.iter().map(letter).collect(),
        })
    }

    /// The results of letters by these answers.
    pub(super) async fn tried_letters(
        &self,
        ids: &[u64],
        answers: Vec<Result<(), QueueError>>,
        may_be_done: bool,
    ) -> Vec<Tried> {
        let gone = match self.gone(ids, &answers).await {
            Ok(gone) => gone,
            Err(error) => {
                let again = |answer| match answer {
                    Err(QueueError::NotFound(_)) => Tried::Again(error.duplicate()),
                    answer => tried(answer, false, may_be_done),
                };
                return answers.into_iter().map(again).collect();
            }
        };
        let pairs = ids.iter().zip(answers);
        pairs
            .map(|(id, answer)| tried(answer, gone.contains(id), may_be_done))
            .collect()
    }

    /// Those that are not there any more, of those that were not found: it may be their route
    /// that is not there.
    async fn gone(
        &self,
        ids: &[u64],
        answers: &[Result<(), QueueError>],
    ) -> Result<HashSet<u64>, QueueError> {
        let is_missing =
            |answer: &Result<(), QueueError>| matches!(answer, Err(QueueError::NotFound(_)));
        let missing = ids.iter().zip(answers);
        let missing = missing.filter(|(_, answer)| is_missing(answer));
        let mut missing: HashSet<u64> = missing.map(|(id, _)| *id).collect();
        let (Some(first), Some(last)) = (missing.iter().min(), missing.iter().max()) else {
            return Ok(missing);
        };
        let mut query = DeadQuery {
            after: first.saturating_sub(1),
            up_to: *last,
            limit: PAGE,
            ..DeadQuery::default()
        };
        loop {
            let found = self.stores().dead_letters().list(query.clone()).await?;
            let Some(last) = found.last() else {
                return Ok(missing);
            };
            query.after = last.id;
            for letter in found {
                missing.remove(&letter.id);
            }
        }
    }
}

fn letter(letter: &DeadLetter) -> v1::JobItem {
    let event = &letter.event;
    v1::JobItem {
        id: letter.id,
        event_id: event.id().to_string(),
        event: queue::cut(event.name()),
        account: queue::cut(event.account()),
        entity: entity(event).unwrap_or_default(),
        route: letter.route.clone(),
        reason: letter.reason.as_str().to_owned(),
        occurred_at: Some(grpc::timestamp(letter.at)),
    }
}
