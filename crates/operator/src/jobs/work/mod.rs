//! The work of a job: which items it has, and what is done to each.

mod letters;
mod replayed;
mod webhooks;

use event_model::Timestamp;
use proto::v1;
use proto::v1::job_spec::Act;
use queue::{DeadQuery, QueueError};
use telemetry::ErrorChain;
use tonic::Status;

use super::items::ItemResult;
use crate::Operator;
use crate::filters::{set, time};
use crate::replay::ReplayPlan;

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
    RecheckQuarantined(ReceivedWithin),
    AdmitRefused(RefusedFilter),
    Replay {
        plan: Box<ReplayPlan>,
        /// The number of the replay, 0 before it has one.
        number: u32,
    },
}

/// A time in which something was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceivedWithin {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

/// Which refused webhooks.
#[derive(Clone, Debug)]
pub(crate) struct RefusedFilter {
    account: Option<String>,
    reason: Option<String>,
    received: ReceivedWithin,
}

impl Work {
    /// The work with the number of its replay.
    pub(crate) fn numbered(self, number: u32) -> Self {
        match self {
            Self::Replay { plan, .. } => Self::Replay { plan, number },
            other => other,
        }
    }
}

/// Some items, in order of their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) items: Vec<v1::JobItem>,
    /// The number to go on from, also if no item is here; `None` at the end, where none is.
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

fn received(
    since: Option<&proto::Timestamp>,
    until: Option<&proto::Timestamp>,
) -> Result<ReceivedWithin, Status> {
    Ok(ReceivedWithin {
        since: time(since, "since")?,
        until: time(until, "until")?,
    })
}

impl Operator {
    /// What the spec of a job that was made at this time asks for.
    ///
    /// # Errors
    /// If it is not valid.
    pub(super) fn work(&self, spec: &v1::JobSpec, made_at: Timestamp) -> Result<Work, Status> {
        let expected = "spec: expected `redrive`, `discard`, `replay`, `recheck_quarantined` or `admit_refused`";
        let act = spec.act.clone();
        match act.ok_or_else(|| Status::invalid_argument(expected))? {
            Act::Redrive(v1::RedriveJob { filter, to }) => Ok(Work::Redrive {
                query: Box::new(crate::letters::query(filter.unwrap_or_default())?),
                to: set(to),
            }),
            Act::Discard(v1::DiscardJob { filter }) => Ok(Work::Discard {
                query: Box::new(crate::letters::query(filter.unwrap_or_default())?),
            }),
            Act::RecheckQuarantined(job) => Ok(Work::RecheckQuarantined(received(
                job.since.as_ref(),
                job.until.as_ref(),
            )?)),
            Act::AdmitRefused(job) => Ok(Work::AdmitRefused(RefusedFilter {
                received: received(job.since.as_ref(), job.until.as_ref())?,
                account: set(job.account),
                reason: set(job.reason),
            })),
            Act::Replay(job) => Ok(Work::Replay {
                plan: Box::new(self.plan(v1::ReplayRequest {
                    route: job.route,
                    from: job.from,
                    until: job.until.or(Some(grpc::timestamp(made_at))),
                    event: job.event,
                    account: job.account,
                    reference: job.reference,
                    again: job.again,
                    dry_run: false,
                })?),
                number: 0,
            }),
        }
    }

    /// Counts the items up to `cut_off`, or those that are there now. The cut-off of the preview is
    /// the last of them: what a caller asks for may lie behind what comes later.
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
                self.page_of_letters(query, after, up_to, limit).await
            }
            Work::RecheckQuarantined(received) => {
                self.page_of_quarantined(received, after, up_to, limit)
                    .await
            }
            Work::AdmitRefused(filter) => self.page_of_refused(filter, after, up_to, limit).await,
            Work::Replay { plan, .. } => self.page_of_received(plan, after, up_to, limit).await,
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
        match work {
            Work::Redrive { to, .. } => {
                let answers = letters.redrive(ids, to.as_deref()).await;
                self.tried_letters(ids, answers, may_be_done).await
            }
            Work::Discard { .. } => {
                let answers = letters.discard(ids).await;
                self.tried_letters(ids, answers, may_be_done).await
            }
            Work::RecheckQuarantined(_) => self.try_quarantined(ids, may_be_done).await,
            Work::AdmitRefused(_) => self.try_refused(ids, may_be_done).await,
            Work::Replay { plan, number } => self.try_replayed(plan, *number, ids).await,
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
