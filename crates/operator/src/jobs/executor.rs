//! The executor: works on jobs while it has the lease.

use std::collections::HashSet;
use std::time::Duration;

use event_model::Timestamp;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use queue::QueueError;
use telemetry::ErrorChain;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout, timeout_at};

use super::lease::{Lease, RENEWED_EVERY};
use super::record::{Executor, JobState};
use super::store::Loaded;
use super::stuck::FAILED_LATELY;
use crate::Operator;

/// Interval at which jobs are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Age of a marker at which its job is kept for longer: what is not written again is forgotten
/// after 30 days.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// Most jobs at once; others wait. Each holds some pages of items.
const MAX_RUNNING: usize = 4;

/// Longest time for the pages that are being changed when the process stops. What is not noted
/// then is found to be done by the next executor.
const LEAVE_WITHIN: Duration = Duration::from_secs(4);

/// Age at which a marker without a record is no job that is just being made.
const ORPHANED_AFTER: Duration = Duration::from_mins(10);

/// Jobs that this process works on.
type Runs = FuturesUnordered<BoxFuture<'static, String>>;

impl Operator {
    /// Works on jobs, whenever no other process does, until this process stops.
    pub async fn run_jobs(self) {
        let draining = self.0.shutdown.draining();
        let process = format!("{}:{}", process::host_name(), std::process::id());
        let mut said = String::new();
        loop {
            let looked = match self.look_for_jobs(&process).await {
                Ok(Some(lease)) => self.execute(lease, &process).await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            let error = looked.err().map(|error| ErrorChain(&error).to_string());
            let error = error.unwrap_or_default();
            if !error.is_empty() && error != said {
                tracing::warn!(error, "jobs can't be looked for now");
            }
            said = error;
            if draining.is_cancelled() {
                return;
            }
            draining.run_until_cancelled(sleep(LOOK_EVERY)).await;
        }
    }

    /// The lease, if there is work and no other process has it.
    async fn look_for_jobs(&self, process: &str) -> Result<Option<Lease>, QueueError> {
        let is_stopping = self.0.shutdown.draining().is_cancelled();
        if is_stopping || self.jobs_to_run(&HashSet::new()).await?.is_empty() {
            return Ok(None);
        }
        Lease::take(self.stores().facts(), process).await
    }

    /// Works on jobs for as long as the lease is ours and there are any.
    async fn execute(&self, mut lease: Lease, process: &str) -> Result<(), QueueError> {
        let draining = self.0.shutdown.draining();
        let executor = Executor {
            token: lease.token.clone(),
            process: process.to_owned(),
        };
        let mut runs = Runs::new();
        let mut running = HashSet::new();
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                biased;
                // Whatever is under way then is another's: it is dropped, and its results are
                // refused by the record.
                () = sleep_until(lease.good_until()) => return Ok(()),
                () = draining.cancelled() => break,
                _ = looks.tick() => {
                    if renewed.elapsed() >= RENEWED_EVERY {
                        let until = lease.good_until();
                        let renewing = lease.renew(self.stores().facts(), process);
                        match timeout_at(until, renewing).await {
                            Ok(Ok(true)) => renewed = Instant::now(),
                            Ok(Ok(false)) | Err(_) => return Ok(()),
                            // It is good for a while, and is tried again.
                            Ok(Err(_)) => continue,
                        }
                    }
                    self.start_jobs(&mut runs, &mut running, &executor).await;
                    if running.is_empty() {
                        break;
                    }
                }
                Some(id) = runs.next() => drop(running.remove(&id)),
            }
        }
        let leaving = async { while runs.next().await.is_some() {} };
        let _ = timeout(LEAVE_WITHIN, leaving).await;
        lease.give_back(self.stores().facts()).await
    }

    /// Starts as many jobs as may run at once.
    async fn start_jobs(
        &self,
        runs: &mut Runs,
        running: &mut HashSet<String>,
        executor: &Executor,
    ) {
        if running.len() >= MAX_RUNNING {
            return;
        }
        // A failure is no problem: the next look is soon.
        for id in self.jobs_to_run(running).await.unwrap_or_default() {
            if running.len() < MAX_RUNNING && running.insert(id.clone()) {
                let operator = self.clone();
                let executor = executor.clone();
                runs.push(Box::pin(async move {
                    operator.run_job(&id, executor).await;
                    id
                }));
            }
        }
    }

    /// The jobs that wait, or whose executor is gone, the oldest first. Markers of others are
    /// removed, and jobs that nobody has written to for long are kept for longer.
    async fn jobs_to_run(&self, running: &HashSet<String>) -> Result<Vec<String>, QueueError> {
        let jobs = self.jobs();
        let open = jobs.open().await?;
        if open.is_empty() {
            return Ok(Vec::new());
        }
        let now = jobs.now().await?;
        let is_older = |at: Timestamp, than: Duration| {
            Duration::try_from(now.duration_since(at)).is_ok_and(|age| age > than)
        };
        let mut found = Vec::new();
        for (id, marked_at) in open {
            if running.contains(&id) {
                // Its first parts and its marker are as old as they are, however long it runs.
                if is_older(marked_at, KEPT_FOR) {
                    jobs.keep(&id).await?;
                }
                continue;
            }
            let Some(Loaded { record, .. }) = jobs.load(&id).await? else {
                if is_older(marked_at, ORPHANED_AFTER) {
                    jobs.close(&id).await?;
                }
                continue;
            };
            match record.state {
                // It stays marked while `status` names it.
                JobState::Failed if !is_older(record.updated_at, FAILED_LATELY) => {}
                state if state.is_over() => jobs.close(&id).await?,
                _ if is_older(marked_at, KEPT_FOR) => jobs.keep(&id).await?,
                JobState::Paused => {}
                _ => found.push((record.created_at, id)),
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, id)| id).collect())
    }
}
