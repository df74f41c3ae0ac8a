//! The beginning of an executor's work on a job: may it be done, and is it ours?

use proto::v1::job_spec::Act;
use queue::QueueError;
use serde_json::{Value, json};
use telemetry::ErrorChain;
use tonic::Code;

use super::record::{Executor, JobRecord, JobState};
use super::rights::role;
use super::run::Run;
use super::spec::audited;
use super::store::Loaded;
use super::work::{Work, may_pass};
use crate::Operator;
use crate::audit::{AffectedItems, OpenEntry};

impl Operator {
    /// Works on a job until it is over, somebody stops it, or this process stops.
    pub(super) async fn run_job(&self, id: &str, executor: Executor) {
        let run = match self.begin_job(id, executor).await {
            Ok(Some(run)) => run,
            Ok(None) => return,
            Err(error) => {
                // It is tried again soon, and said once.
                let words = ErrorChain(&error).to_string();
                let _ = self.note_job(id, &words).await;
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
        // Before the audit log has a line of it: it may be tried for long.
        let number = match self.number_of(&record).await {
            Ok(number) => number,
            Err(error) if may_pass(&error) => return Err(error),
            Err(error) => {
                let words = ErrorChain(&error).to_string();
                return self.fail_job(id, &words).await;
            }
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
            if record.replay_number == 0 {
                record.replay_number = number;
            }
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
            work: work.numbered(record.replay_number),
            record,
            version,
            draining: self.0.shutdown.draining(),
            touched: AffectedItems::default(),
            succeeded: 0,
            failed: 0,
        };
        Ok(Some((run, entry)))
    }

    /// The number of a replay, which is taken once for each job: what is done again after a crash
    /// has the number that it had.
    async fn number_of(&self, record: &JobRecord) -> Result<u32, QueueError> {
        match &record.spec.act {
            Some(Act::Replay(job)) if record.replay_number == 0 => {
                self.stores().number_replay(&job.route).await
            }
            _ => Ok(record.replay_number),
        }
    }

    /// The work of a job whose maker may still do it. One who may not has it paused.
    async fn check_job(&self, record: &JobRecord) -> Result<Option<Work>, QueueError> {
        let may = self.ensure_may_still(&record.maker, &role(&record.spec));
        let refused = match may.and_then(|()| self.work(&record.spec, record.created_at)) {
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

    /// Ends a job that can never begin.
    async fn fail_job<T>(&self, id: &str, words: &str) -> Result<Option<T>, QueueError> {
        let now = self.0.clock.now();
        let jobs = self.jobs();
        let ended = jobs.change(id, |record| {
            if record.state.is_over() {
                return Err(());
            }
            record.executor = None;
            record.set_state(JobState::Failed, words, now);
            Ok(())
        });
        if ended.await.is_ok() {
            tracing::error!(job = id, "failed: {words}");
        }
        Ok(None)
    }

    /// Notes what a job waits for.
    pub(super) async fn note_job(&self, id: &str, words: &str) -> Result<(), QueueError> {
        let found = self.jobs().load(id).await?;
        if let Some(Loaded {
            mut record,
            version,
        }) = found
            && !record.state.is_over()
            && record.detail != words
        {
            tracing::warn!(job = id, "a job waits: {words}");
            record.set_state(record.state, words, self.0.clock.now());
            // If somebody else changed it, it is noted next time.
            self.jobs().replace(&record, version).await?;
        }
        Ok(())
    }
}

fn is_to_run(record: &JobRecord) -> bool {
    matches!(record.state, JobState::Waiting | JobState::Running)
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
