//! Jobs that somebody should look at.

use std::time::Duration;

use event_model::Timestamp;

use super::lease::holder;
use super::record::{JobRecord, JobState};
use crate::Operator;
use crate::status_lines::StuckJob;

/// Time without a change after which a job that should go on is stuck.
const STANDS_STILL: Duration = Duration::from_mins(15);

/// Time after which a paused job is named: it may have been forgotten.
const FORGOTTEN: Duration = Duration::from_hours(24);

/// Time for which a job that failed is named.
pub(super) const FAILED_LATELY: Duration = Duration::from_hours(24);

impl Operator {
    /// The jobs that failed lately, or do not go on. What can't be read is left out: then the
    /// queue is away, which has a line of its own.
    pub(crate) async fn stuck_jobs(&self) -> Vec<StuckJob> {
        let jobs = self.jobs();
        let now = self.0.clock.now();
        let has_executor = matches!(holder(self.stores().facts()).await, Ok(Some(_)));
        let mut stuck = Vec::new();
        for (id, _) in jobs.open().await.unwrap_or_default() {
            if let Ok(Some(found)) = jobs.load(&id).await
                && is_stuck(&found.record, has_executor, now)
            {
                stuck.push(described(found.record, has_executor));
            }
        }
        stuck
    }
}

fn is_stuck(job: &JobRecord, has_executor: bool, now: Timestamp) -> bool {
    let age = Duration::try_from(now.duration_since(job.updated_at)).unwrap_or_default();
    match job.state {
        JobState::Failed => age < FAILED_LATELY,
        JobState::Paused => age > FORGOTTEN,
        JobState::Running => age > STANDS_STILL,
        // It may wait for others before it, which are worked on.
        JobState::Waiting => age > STANDS_STILL && (!has_executor || !job.detail.is_empty()),
        JobState::Done | JobState::Cancelled => false,
    }
}

fn described(job: JobRecord, has_executor: bool) -> StuckJob {
    let is_unserved = !has_executor && job.detail.is_empty() && !job.state.is_over();
    StuckJob {
        state: job.state.as_str(),
        detail: match is_unserved {
            true => "no process runs jobs".to_owned(),
            false => job.detail,
        },
        since: job.updated_at,
        id: job.id,
    }
}
