//! One executor's work on one job: page by page, each noted before the next is begun.

use std::collections::BTreeMap;
use std::time::Duration;

use fail::fail_point;
use queue::QueueError;
use telemetry::ErrorChain;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::items::{ItemLog, ItemResult};
use super::record::{Executor, JobRecord, JobState};
use super::store::JobStore;
use super::work::{PAGE, Page, Tried, Work, may_pass};
use crate::Operator;
use crate::audit::{AffectedItems, OpenEntry};

/// First wait after a failure that may pass, and the longest.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(500);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Most tries of an item while the queue answers otherwise.
const MAX_TRIES: u32 = 8;

/// The reason why work on a job ends before its last item.
#[derive(Debug)]
pub(super) enum Stop {
    /// A person paused or ended it, or this process stops.
    Told,
    /// Another executor has it.
    Lost,
    /// It can't go on.
    Failed(String),
}

/// A job in the hands of an executor.
pub(super) struct Run<'o> {
    pub(super) operator: &'o Operator,
    pub(super) executor: Executor,
    pub(super) record: JobRecord,
    pub(super) version: u64,
    pub(super) work: Work,
    pub(super) draining: CancellationToken,
    /// Results of this run, for the audit log.
    pub(super) touched: AffectedItems,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
}

impl Run<'_> {
    pub(super) fn jobs(&self) -> JobStore<'_> {
        self.operator.jobs()
    }

    /// Works, and writes down how it ended.
    pub(super) async fn finish(mut self, entry: OpenEntry) {
        let result = self.work_off().await;
        let outcome = match self.end(result).await {
            Ok(()) => self.record.state.as_str().to_owned(),
            Err(Stop::Failed(why)) => why,
            Err(Stop::Told) if self.record.state == JobState::Waiting => {
                "this server stops".to_owned()
            }
            Err(Stop::Told) => self.record.state.as_str().to_owned(),
            Err(Stop::Lost) => "another process has it".to_owned(),
        };
        if self.record.state.is_over() && self.record.state != JobState::Failed {
            // Otherwise the next look at it does.
            let _ = self.jobs().close(&self.record.id).await;
        }
        entry
            .end_with(&self.touched, self.succeeded, self.failed, &outcome)
            .await;
    }

    /// Stores how the work ended.
    async fn end(&mut self, result: Result<(), Stop>) -> Result<(), Stop> {
        let now = self.operator.0.clock.now();
        match &result {
            Ok(()) => {
                self.save(|record| {
                    record.executor = None;
                    if record.state == JobState::Running {
                        record.finish(now);
                    }
                })
                .await?;
                // Its parts are as old as their items.
                let _ = self.jobs().keep(&self.record.id).await;
            }
            Err(Stop::Failed(why)) => {
                self.save(|record| {
                    record.executor = None;
                    record.set_state(JobState::Failed, why, now);
                })
                .await?;
                let _ = self.jobs().keep(&self.record.id).await;
            }
            Err(Stop::Told) => self.save(leave).await?,
            Err(Stop::Lost) => {}
        }
        result
    }

    async fn work_off(&mut self) -> Result<(), Stop> {
        // What another executor had begun may be done in part.
        let mut ids = self.record.claimed.clone();
        let mut may_be_done = true;
        loop {
            let began = Instant::now();
            let after = self.record.after;
            let trying = self.try_all(&ids, may_be_done);
            let (results, page) = tokio::join!(trying, self.read(after));
            fail_point!("job.changed");
            self.rest(began, results.len()).await;
            let page = self.note(&ids, results, page).await?;
            let Some(_) = page.next else {
                return Ok(());
            };
            fail_point!("job.claimed");
            ids = page.ids();
            may_be_done = false;
        }
    }

    /// Stores the results of items, and that the next page is about to be changed. Items without
    /// a result stay claimed.
    async fn note(
        &mut self,
        ids: &[u64],
        results: Vec<(u64, ItemResult)>,
        page: Result<Page, Stop>,
    ) -> Result<Page, Stop> {
        self.count(&results);
        let left: Vec<u64> = ids[results.len()..].to_vec();
        let next = page.as_ref().ok().filter(|_| left.is_empty());
        let next = next.filter(|_| !self.draining.is_cancelled());
        let claim = next.and_then(|page| Some((page.next?, page.ids())));
        let has_next = next.is_some();
        self.store_full_part().await?;
        let is_full = self.record.log.is_full();
        self.save(|record| {
            if is_full {
                record.parts += 1;
                record.log = ItemLog::default();
            }
            for (id, result) in &results {
                record.counts.count(result);
                record.log.note(*id, result, &mut record.kept);
            }
            record.claimed.clone_from(&left);
            if let Some((after, ids)) = &claim
                && record.state == JobState::Running
            {
                record.after = *after;
                record.claimed.clone_from(ids);
                record.detail.clear();
            }
        })
        .await?;
        let page = page?;
        match has_next && self.record.state == JobState::Running {
            true => Ok(page),
            false => Err(Stop::Told),
        }
    }

    fn count(&mut self, results: &[(u64, ItemResult)]) {
        for (id, result) in results {
            match result {
                ItemResult::Done => self.succeeded += 1,
                ItemResult::Failed(_) => self.failed += 1,
                ItemResult::Skipped | ItemResult::Unknown => continue,
            }
            self.touched.note(*id, *result == ItemResult::Done);
        }
    }

    /// Waits as long as the job's rate wants after so many items, or until this process stops.
    async fn rest(&self, began: Instant, items: usize) {
        if self.record.rate > 0 {
            let until = began + Duration::from_secs_f64(items as f64 / f64::from(self.record.rate));
            let draining = &self.draining;
            draining.run_until_cancelled(sleep_until(until)).await;
        }
    }

    /// Reads the items behind `after`, however long the queue is away.
    async fn read(&self, mut after: u64) -> Result<Page, Stop> {
        let rate = usize::try_from(self.record.rate).unwrap_or(PAGE);
        let limit = if rate == 0 { PAGE } else { PAGE.min(rate) };
        let up_to = self.record.preview.cut_off;
        let mut wait = FIRST_WAIT;
        loop {
            match self.operator.page(&self.work, after, up_to, limit).await {
                Ok(page) => match page.next {
                    Some(next) if page.items.is_empty() => after = next,
                    _ => return Ok(page),
                },
                Err(error) if may_pass(&error) => self.wait_for(&mut wait, &error).await?,
                Err(error) => return Err(Stop::Failed(ErrorChain(&error).to_string())),
            }
        }
    }

    /// Changes items until each has its result. Returns the results of the first of them if this
    /// is told to stop before that.
    async fn try_all(&self, ids: &[u64], may_be_done: bool) -> Vec<(u64, ItemResult)> {
        let mut results: BTreeMap<u64, ItemResult> = BTreeMap::new();
        let mut left = ids.to_vec();
        let mut wait = FIRST_WAIT;
        let mut tries = 0;
        while !left.is_empty() {
            let is_again = may_be_done || tries > 0;
            let tried = self.operator.try_items(&self.work, &left, is_again).await;
            let mut why = None;
            for (id, tried) in left.iter().zip(tried) {
                match tried {
                    Tried::Ended(result) => drop(results.insert(*id, result)),
                    Tried::Again(error) if tries >= MAX_TRIES && !is_full(&error) => {
                        let words = ErrorChain(&error).to_string();
                        results.insert(*id, ItemResult::Failed(words));
                    }
                    Tried::Again(error) => why = Some(error),
                }
            }
            left.retain(|id| !results.contains_key(id));
            let Some(why) = why else { break };
            match self.wait_for(&mut wait, &why).await {
                Ok(()) => tries += 1,
                Err(_) => break,
            }
        }
        // In order, up to the first that has none: what is behind it is looked at again.
        let with_result = |id: &u64| Some((*id, results.remove(id)?));
        ids.iter().map_while(with_result).collect()
    }

    /// Waits after a failure, longer each time. A try counts only if the record could be read:
    /// the queue was there.
    async fn wait_for(&self, wait: &mut Duration, why: &QueueError) -> Result<(), Stop> {
        let words = ErrorChain(why).to_string();
        loop {
            let slept = self.draining.run_until_cancelled(sleep(*wait)).await;
            slept.ok_or(Stop::Told)?;
            *wait = (*wait * 2).min(LONGEST_WAIT);
            match self.jobs().load(&self.record.id).await {
                Ok(Some(found)) if !found.record.is_of(&self.executor.token) => {
                    return Err(Stop::Lost);
                }
                Ok(Some(found)) if found.record.state != JobState::Running => {
                    return Err(Stop::Told);
                }
                Ok(Some(_)) => {
                    let _ = self.operator.note_job(&self.record.id, &words).await;
                    return Ok(());
                }
                Ok(None) => return Err(Stop::Lost),
                Err(_) => {}
            }
        }
    }
}

fn is_full(error: &QueueError) -> bool {
    matches!(error, QueueError::Full)
}

/// Leaves a job to the next executor.
fn leave(record: &mut JobRecord) {
    record.executor = None;
    if record.state == JobState::Running {
        record.state = JobState::Waiting;
    }
}
