//! The work of a job: which items it has, and what is done to each.

use std::collections::HashSet;

use proto::v1;
use proto::v1::job_spec::Act;
use queue::{DeadLetter, DeadQuery, QueueError, entity};
use telemetry::ErrorChain;
use tonic::Status;

use super::items::ItemResult;
use crate::deliveries::set;
use crate::{Operator, letters};

/// Most items that are read and changed together. Between two pages a job is paused, cancelled
/// or handed over.
pub(crate) const PAGE: usize = 500;

/// Items that are shown before a job is made.
const SAMPLES: usize = 10;

/// What a job does, read from its spec.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Redrive {
        query: Box<DeadQuery>,
        to: Option<String>,
    },
    Discard {
        query: Box<DeadQuery>,
    },
}

/// Some items, in order of their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) items: Vec<v1::JobItem>,
    /// The number to go on from; `None` at the end.
    pub(crate) next: Option<u64>,
}

impl Page {
    /// The numbers of its items.
    pub(crate) fn ids(&self) -> Vec<u64> {
        self.items.iter().map(|item| item.id).collect()
    }
}

/// What came of trying an item.
#[derive(Debug)]
pub(crate) enum Tried {
    /// This is its result.
    Ended(ItemResult),
    /// Trying again may help.
    Again(QueueError),
}

impl Operator {
    /// What a spec asks for.
    ///
    /// # Errors
    /// If it is not valid.
    pub(super) fn work(&self, spec: &v1::JobSpec) -> Result<Work, Status> {
        let expected = "spec: expected `redrive` or `discard`";
        let act = spec.act.clone();
        match act.ok_or_else(|| Status::invalid_argument(expected))? {
            Act::Redrive(v1::RedriveJob { filter, to }) => Ok(Work::Redrive {
                query: Box::new(letters::query(filter.unwrap_or_default())?),
                to: set(to),
            }),
            Act::Discard(v1::DiscardJob { filter }) => Ok(Work::Discard {
                query: Box::new(letters::query(filter.unwrap_or_default())?),
            }),
            Act::Replay(_) | Act::RecheckQuarantined(_) | Act::AdmitRefused(_) => Err(
                Status::unimplemented(format!("{expected}: this version has no other jobs")),
            ),
        }
    }

    /// Counts the items up to `cut_off`, or those that are there now.
    pub(super) async fn preview(
        &self,
        work: &Work,
        cut_off: Option<u64>,
    ) -> Result<v1::PreviewJobResponse, QueueError> {
        let mut preview = v1::PreviewJobResponse::default();
        let up_to = cut_off.unwrap_or(u64::MAX);
        let mut after = Some(0);
        while let Some(from) = after {
            let page = self.page(work, from, up_to, PAGE).await?;
            preview.count += page.items.len() as u64;
            if let Some(last) = page.items.last() {
                preview.cut_off = last.id;
            }
            let wanted = SAMPLES - preview.samples.len();
            preview.samples.extend(page.items.into_iter().take(wanted));
            after = page.next;
        }
        preview.cut_off = cut_off.unwrap_or(preview.cut_off);
        Ok(preview)
    }

    /// The items behind `after`, up to the cut-off.
    pub(super) async fn page(
        &self,
        work: &Work,
        after: u64,
        up_to: u64,
        limit: usize,
    ) -> Result<Page, QueueError> {
        match work {
            Work::Redrive { query, .. } | Work::Discard { query } => {
                let query = DeadQuery {
                    after,
                    up_to: query.up_to.min(up_to),
                    limit,
                    ..(**query).clone()
                };
                let found = self.stores().dead_letters().list(query).await?;
                Ok(Page {
                    next: found.last().map(|letter| letter.id),
                    items: found.iter().map(letter).collect(),
                })
            }
        }
    }

    /// Does to each item what the job is for. With `may_be_done`, one that is not there any more
    /// was done before a crash.
    pub(super) async fn try_items(
        &self,
        work: &Work,
        ids: &[u64],
        may_be_done: bool,
    ) -> Vec<Tried> {
        let letters = self.stores().dead_letters();
        let answers = match work {
            Work::Redrive { to, .. } => letters.redrive(ids, to.as_deref()).await,
            Work::Discard { .. } => letters.discard(ids).await,
        };
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

fn tried(answer: Result<(), QueueError>, is_gone: bool, may_be_done: bool) -> Tried {
    match answer {
        Ok(()) => Tried::Ended(ItemResult::Done),
        Err(QueueError::NotFound(_)) if is_gone && may_be_done => Tried::Ended(ItemResult::Done),
        Err(QueueError::NotFound(_)) if is_gone => Tried::Ended(ItemResult::Skipped),
        Err(error) if may_pass(&error) => Tried::Again(error),
        Err(error) => Tried::Ended(ItemResult::Failed(ErrorChain(&error).to_string())),
    }
}

/// True for an error that has nothing to do with what was asked for.
pub(crate) fn may_pass(error: &QueueError) -> bool {
    matches!(
        error,
        QueueError::Unavailable { .. }
            | QueueError::Full
            | QueueError::Closed
            | QueueError::Failed(_)
    )
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
