//! One executor's work on one job: page by page, each noted before the next is begun.

use std::collections::BTreeMap;
use std::time::Duration;

use fail::fail_point;
use queue::QueueError;
use serde_json::{Value, json};
use telemetry::ErrorChain;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::items::{ItemLog, ItemResult};
use super::record::{Executor, JobRecord, JobState};
use super::rights::role;
use super::spec::audited;
use super::store::{JobStore, Loaded};
use super::work::{PAGE, Page, Tried, Work, may_pass};
use crate::Operator;
use crate::audit::{AffectedItems, OpenEntry};

/// First wait after a failure that may pass, and the longest.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Most tries of an item while the queue answers otherwise.
const MAX_TRIES: u32 = 8;

/// The reason why work on a job ends before its last item.
#[derive(Debug)]
enum Stop {
    /// A person paused or ended it, or this process stops.
    Told,
    /// Another executor has it.
    Lost,
    /// It can't go on.
    Failed(String),
}

/// A job in the hands of an executor.
struct Run<'o> {
    operator: &'o Operator,
    executor: Executor,
    record: JobRecord,
    version: u64,
    work: Work,
    draining: CancellationToken,
    /// Results of this run, for the audit log.
    touched: AffectedItems,
    succeeded: u64,
    failed: u64,
}

impl Operator {
    /// Works on a job until it is over, somebody stops it, or this process stops.
    pub(super) async fn run_job(&self, id: &str, executor: Executor) {
        let run = match self.begin_job(id, executor).await {
            Ok(Some(run)) => run,
            Ok(None) => return,
            Err(error) => {
                let error = ErrorChain(&error).to_string();
                tracing::warn!(job = id, error, "a job can't be begun now");
                return;
            }
        };
        let (run, entry) = run;
        run.finish(entry).await;
    }

    /// Takes a job; `None` if there is nothing to do, or it may not be done.
    async fn begin_job(
        &self,
        id: &str,
        executor: Executor,
    ) -> Result<Option<(Run<'_>, OpenEntry)>, QueueError> {
        let jobs = self.jobs();
        let Some(Loaded { record, .. }) = jobs.load(id).await? else {
            return Ok(None);
        };
        if !is_to_run(&record) {
            return Ok(None);
        }
        let Some(work) = self.check_job(&record).await? else {
            return Ok(None);
        };
        let Ok(entry) = self
            .0
            .audit
            .begin(&record.maker.name, "RunJob", described(&record))
            .await
        else {
            // It is not begun, and its next try is soon.
            let words = "the audit log can't be written where jobs are run";
            tracing::error!(job = id, "{words}: the job waits");
            return self.note_job(id, words).await.map(|()| None);
        };
        let now = self.0.clock.now();
        let begun = jobs.change(id, |record| {
            if !is_to_run(record) {
                return Err(());
            }
            record.executor = Some(executor.clone());
            record.started_at.get_or_insert(now);
            record.step += 1;
            record.set_state(JobState::Running, "", now);
            Ok(())
        });
        if begun.await.is_err() {
            entry.end(0, 0, "not begun").await;
            return Ok(None);
        }
        let Some(Loaded { record, version }) = jobs.load(id).await? else {
            entry.end(0, 0, "not begun").await;
            return Ok(None);
        };
        let run = Run {
            operator: self,
            executor,
            record,
            version,
            work,
            draining: self.0.shutdown.draining(),
            touched: AffectedItems::default(),
            succeeded: 0,
            failed: 0,
        };
        Ok(Some((run, entry)))
    }

    /// The work of a job whose maker may still do it. One who may not has it paused.
    async fn check_job(&self, record: &JobRecord) -> Result<Option<Work>, QueueError> {
        let may = self.ensure_may_still(&record.maker, &role(&record.spec));
        let refused = match may.and_then(|()| self.work(&record.spec)) {
            Ok(work) => return Ok(Some(work)),
            Err(refused) => refused,
        };
        let words = refused.message().to_owned();
        if refused.code() == Code::PermissionDenied {
            let now = self.0.clock.now();
            let jobs = self.jobs();
            let paused = jobs.change(&record.id, |record| {
                if record.state.is_over() {
                    return Err(());
                }
                record.executor = None;
                record.set_state(JobState::Paused, &words, now);
                Ok(())
            });
            let _ = paused.await;
            tracing::warn!(job = record.id, "paused: {words}");
        } else {
            self.note_job(&record.id, &words).await?;
        }
        Ok(None)
    }

    /// Notes what a job waits for.
    async fn note_job(&self, id: &str, words: &str) -> Result<(), QueueError> {
        let found = self.jobs().load(id).await?;
        if let Some(Loaded {
            mut record,
            version,
        }) = found
            && !record.state.is_over()
            && record.detail != words
        {
            record.set_state(record.state, words, self.0.clock.now());
            // If somebody else changed it, it is noted next time.
            self.jobs().replace(&record, version).await?;
        }
        Ok(())
    }
}

impl Run<'_> {
    fn jobs(&self) -> JobStore<'_> {
        self.operator.jobs()
    }

    /// Works, and writes down how it ended.
    async fn finish(mut self, entry: OpenEntry) {
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
        if self.record.state.is_over() {
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
                ItemResult::Skipped => continue,
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
    async fn read(&self, after: u64) -> Result<Page, Stop> {
        let rate = usize::try_from(self.record.rate).unwrap_or(PAGE);
        let limit = if rate == 0 { PAGE } else { PAGE.min(rate) };
        let up_to = self.record.preview.cut_off;
        let mut wait = FIRST_WAIT;
        loop {
            match self.operator.page(&self.work, after, up_to, limit).await {
                Ok(Page {
                    items,
                    next: Some(next),
                }) if items.is_empty() => return Box::pin(self.read(next)).await,
                Ok(page) => return Ok(page),
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
        tracing::warn!(job = self.record.id, error = words, "a job waits");
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

    /// Stores the record's part of the log by itself, if it is full. Its version is read before
    /// the record is: an executor that has lost the job finds that out, or another's part there.
    async fn store_full_part(&mut self) -> Result<(), Stop> {
        if !self.record.log.is_full() {
            return Ok(());
        }
        let id = self.record.id.clone();
        let part = self.record.parts;
        let mut wait = FIRST_WAIT;
        loop {
            let stored = async {
                let version = self.jobs().part_version(&id, part).await?;
                match self.jobs().load(&id).await? {
                    Some(found) if found.record.is_of(&self.executor.token) => {}
                    _ => return Ok(None),
                }
                let log = &self.record.log;
                let stored = self.jobs().store_part(&id, part, log, version).await?;
                Ok::<_, QueueError>(Some(stored))
            };
            match stored.await {
                Ok(None) => return Err(Stop::Lost),
                Ok(Some(true)) => return Ok(()),
                Ok(Some(false)) => {}
                Err(error) => {
                    self.wait_to_save(&mut wait, &error).await;
                }
            }
        }
    }

    /// Changes the record, unless another executor has the job: what people changed meanwhile
    /// stays, and the change is made on top of it.
    async fn save(&mut self, change: impl Fn(&mut JobRecord)) -> Result<(), Stop> {
        let step = self.record.step + 1;
        let mut wait = FIRST_WAIT;
        loop {
            if !self.record.is_of(&self.executor.token) {
                return Err(Stop::Lost);
            }
            let mut next = self.record.clone();
            next.step = step;
            next.updated_at = self.operator.0.clock.now();
            change(&mut next);
            let replaced = self.jobs().replace(&next, self.version).await;
            if let Err(error) = &replaced {
                self.wait_to_save(&mut wait, error).await;
            }
            let found = loop {
                match self.jobs().load(&self.record.id).await {
                    Ok(Some(found)) => break found,
                    Ok(None) => return Err(Stop::Lost),
                    Err(error) => self.wait_to_save(&mut wait, &error).await,
                }
            };
            (self.record, self.version) = (found.record, found.version);
            // What was not answered may be stored all the same.
            if matches!(replaced, Ok(true)) || self.record.step == step {
                return Ok(());
            }
        }
    }

    /// Waits before the record is written again: what is done has to be noted.
    async fn wait_to_save(&self, wait: &mut Duration, why: &QueueError) {
        let error = ErrorChain(why).to_string();
        tracing::warn!(
            job = self.record.id,
            error,
            "what a job did can't be noted now"
        );
        sleep(*wait).await;
        *wait = (*wait * 2).min(LONGEST_WAIT);
    }
}

fn is_to_run(record: &JobRecord) -> bool {
    matches!(record.state, JobState::Waiting | JobState::Running)
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

/// The job as the audit log has it.
fn described(record: &JobRecord) -> Value {
    json!({
        "job": record.id,
        "spec": audited(&record.spec),
        "cutOff": record.preview.cut_off,
        "count": record.preview.count,
        "reason": record.reason,
    })
}
