//! The methods of the service `Jobs`: a caller, its rights, and a change of a record.

use std::time::Duration;

use event_model::Timestamp;
use grpc::Caller;
use proto::v1;
use queue::QueueError;
use serde_json::json;
use tonic::{Request, Response, Status};

use super::asked::{check, ensure_expected, request_name, wrong};
use super::lease::holder;
use super::record::{JobRecord, JobState, Maker, NewJob, id_of};
use super::rights::role;
use super::spec::audited;
use super::store::{ChangeError, MAX_OPEN};
use crate::audit::Ranges;
use crate::{Operator, failure, pages};

type Answer<T> = Result<Response<T>, Status>;

/// Time within which an executor takes a job, if there is one.
const TAKEN_WITHIN: Duration = Duration::from_secs(15);

fn failed(error: QueueError) -> Status {
    failure::queue(&error)
}

#[tonic::async_trait]
impl v1::jobs_server::Jobs for Operator {
    async fn preview_job(
        &self,
        request: Request<v1::PreviewJobRequest>,
    ) -> Answer<v1::PreviewJobResponse> {
        let spec = request.into_inner().spec.unwrap_or_default();
        let work = self.work(&spec, self.0.clock.now())?;
        self.ensure_names(&spec).await?;
        let preview = self.preview(&work, None).await.map_err(failed)?;
        Ok(Response::new(preview))
    }

    async fn create_job(
        &self,
        request: Request<v1::CreateJobRequest>,
    ) -> Answer<v1::CreateJobResponse> {
        let caller = Caller::of(request.extensions())?;
        let asked = check(request.get_ref())?;
        let spec = asked.spec.clone().unwrap_or_default();
        let work = self.work(&spec, self.0.clock.now())?;
        caller.must(&role(&spec))?;
        self.ensure_names(&spec).await?;
        let named = request_name(&caller.name, &asked.request_id);
        if let Some(job) = self.known_job(&named, &asked).await? {
            return Ok(Response::new(created(&job, true)));
        }
        let counting = async {
            self.ensure_place().await?;
            let preview = self.preview(&work, asked.cut_off).await.map_err(failed)?;
            ensure_expected(&asked, &preview)?;
            Ok(preview)
        };
        let preview = match counting.await {
            Ok(preview) => preview,
            // The same form may have made it meanwhile, and less is left to count.
            Err(refused) => match self.known_job(&named, &asked).await? {
                Some(job) => return Ok(Response::new(created(&job, true))),
                None => return Err(refused),
            },
        };
        let job = NewJob {
            request: named,
            preview,
            maker: Maker::new(caller.name.clone(), caller.origin()),
            reason: asked.reason.clone(),
            rate: asked.rate,
            spec,
        };
        let what = json!({
            "job": id_of(&job.request),
            "spec": audited(&job.spec),
            "cutOff": job.preview.cut_off,
            "count": job.preview.count,
            "reason": job.reason,
            "rate": job.rate,
        });
        let work = async {
            let record = JobRecord::new(job, self.0.clock.now());
            let created_job = self.jobs().create(record).await;
            let (record, existed) = created_job.map_err(|error| match error {
                QueueError::Full => no_room(),
                error => failed(error),
            })?;
            Ok(created(&record, existed))
        };
        self.change(&request, "CreateJob", what, work).await
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Answer<v1::GetJobResponse> {
        let mut record = self.job(&request.get_ref().id).await?;
        self.explain_waiting([&mut record].into_iter()).await;
        let log = self.jobs().log(&record).await.map_err(failed)?;
        let ranges = log.iter().flat_map(|part| &part.done);
        let mut ids: Ranges = ranges.copied().collect();
        let kept: u64 = log.iter().map(super::items::ItemLog::items_done).sum();
        ids.leave_out(record.counts.succeeded.saturating_sub(kept));
        let job = v1::Job {
            succeeded_ids: ids.text(),
            ..record.described()
        };
        Ok(Response::new(v1::GetJobResponse { job: Some(job) }))
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Answer<v1::ListJobsResponse> {
        let v1::ListJobsRequest {
            state,
            page_size,
            page_token,
        } = request.into_inner();
        let expected = "state: expected waiting, running, paused, done, cancelled or failed";
        let wanted = match state.as_str() {
            "" => None,
            name => Some(JobState::from_name(name).ok_or_else(|| wrong(expected))?),
        };
        let limit = pages::size(page_size, 50);
        let after = place(&page_token)?;
        let mut all = self.jobs().all().await.map_err(failed)?;
        self.explain_waiting(all.iter_mut()).await;
        let mut jobs = all
            .iter()
            .filter(|job| wanted.is_none_or(|wanted| job.state == wanted))
            .filter(|job| after.as_ref().is_none_or(|after| is_behind(job, after)));
        let page: Vec<&JobRecord> = jobs.by_ref().take(limit).collect();
        let shown = pages::fitting(page.iter().map(|job| job.described()));
        let has_more = jobs.next().is_some() || shown.len() < page.len();
        let last = shown.len().checked_sub(1).and_then(|last| page.get(last));
        Ok(Response::new(v1::ListJobsResponse {
            next_page_token: last
                .filter(|_| has_more)
                .map(|job| format!("{}~{}", job.created_at.as_nanosecond(), job.id))
                .unwrap_or_default(),
            jobs: shown,
        }))
    }

    async fn list_job_failures(
        &self,
        request: Request<v1::ListJobFailuresRequest>,
    ) -> Answer<v1::ListJobFailuresResponse> {
        let v1::ListJobFailuresRequest {
            id,
            page_size,
            page_token,
        } = request.into_inner();
        let limit = pages::size(page_size, 50);
        let from = usize::try_from(pages::place(&page_token)?.unwrap_or(0)).unwrap_or(usize::MAX);
        let record = self.job(&id).await?;
        let log = self.jobs().log(&record).await.map_err(failed)?;
        let all = log.iter().flat_map(|part| &part.failed);
        let failures: Vec<_> = all
            .skip(from)
            .take(limit)
            .map(|(id, error)| v1::JobFailure {
                id: *id,
                error: error.clone(),
            })
            .collect();
        let kept = u64::from(record.kept.failures);
        let next = (from + failures.len()) as u64;
        Ok(Response::new(v1::ListJobFailuresResponse {
            next_page_token: pages::next(Some(next), failures.len() == limit && next < kept),
            failures,
            not_kept: record.counts.failed.saturating_sub(kept),
        }))
    }

    async fn pause_job(
        &self,
        request: Request<v1::PauseJobRequest>,
    ) -> Answer<v1::PauseJobResponse> {
        let caller = Caller::of(request.extensions())?;
        let job = self.job(&request.get_ref().id).await?;
        let now = self.0.clock.now();
        let words = format!("paused by {}", caller.name);
        let work = self.change_job(&job.id, false, |job| {
            ensure_not_over(job)?;
            if job.state != JobState::Paused {
                job.set_state(JobState::Paused, &words, now);
            }
            Ok(())
        });
        let work = async { Ok(v1::PauseJobResponse { job: work.await? }) };
        self.change(&request, "PauseJob", json!({ "job": job.id }), work)
            .await
    }

    async fn resume_job(
        &self,
        request: Request<v1::ResumeJobRequest>,
    ) -> Answer<v1::ResumeJobResponse> {
        let caller = Caller::of(request.extensions())?;
        let job = self.job(&request.get_ref().id).await?;
        let needed = role(&job.spec);
        caller.must(&needed)?;
        self.ensure_may_still(&job.maker, &needed)?;
        let now = self.0.clock.now();
        let work = self.change_job(&job.id, false, |job| {
            ensure_not_over(job)?;
            if job.state == JobState::Paused {
                job.executor = None;
                job.set_state(JobState::Waiting, "", now);
            }
            Ok(())
        });
        let work = async { Ok(v1::ResumeJobResponse { job: work.await? }) };
        self.change(&request, "ResumeJob", json!({ "job": job.id }), work)
            .await
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Answer<v1::CancelJobResponse> {
        let caller = Caller::of(request.extensions())?;
        let job = self.job(&request.get_ref().id).await?;
        let now = self.0.clock.now();
        let words = format!("cancelled by {}", caller.name);
        let work = self.change_job(&job.id, true, |job| {
            if job.state != JobState::Cancelled {
                ensure_not_over(job)?;
                job.set_state(JobState::Cancelled, &words, now);
            }
            Ok(())
        });
        let work = async { Ok(v1::CancelJobResponse { job: work.await? }) };
        self.change(&request, "CancelJob", json!({ "job": job.id }), work)
            .await
    }
}

impl Operator {
    /// Says of jobs that wait for long whether it is for a process that runs jobs.
    async fn explain_waiting<'r>(&self, jobs: impl Iterator<Item = &'r mut JobRecord>) {
        let now = self.0.clock.now();
        let is_stuck = |job: &&mut JobRecord| {
            let age = Duration::try_from(now.duration_since(job.updated_at)).unwrap_or_default();
            let is_to_run = matches!(job.state, JobState::Waiting | JobState::Running);
            is_to_run && job.detail.is_empty() && age > TAKEN_WITHIN
        };
        let stuck: Vec<_> = jobs.filter(is_stuck).collect();
        if stuck.is_empty() {
            return;
        }
        let Ok(holder) = holder(self.stores().facts()).await else {
            return;
        };
        let nobody = "no process runs jobs: start `serve` or `fluent-webhooks operator`";
        for job in stuck {
            match &holder {
                None => nobody.clone_into(&mut job.detail),
                Some(process) if job.state == JobState::Waiting => {
                    job.detail = format!("waits for its turn at {process}");
                }
                Some(_) => {}
            }
        }
    }

    /// The job that a caller names.
    async fn job(&self, id: &str) -> Result<JobRecord, Status> {
        let found = self.jobs().find(id).await.map_err(failed)?;
        let found = found.map(|found| found.record);
        found.ok_or_else(|| {
            let shown: String = id.chars().take(40).collect();
            Status::not_found(format!("there is no job `{shown}`, or several begin so"))
        })
    }

    /// Changes a job's record; with `is_end` it is over then.
    async fn change_job(
        &self,
        id: &str,
        is_end: bool,
        change: impl Fn(&mut JobRecord) -> Result<(), Status>,
    ) -> Result<Option<v1::Job>, Status> {
        let changed = match is_end {
            true => self.jobs().end(id, change).await,
            false => self.jobs().change(id, change).await,
        };
        match changed {
            Ok(record) => Ok(Some(record.described())),
            Err(ChangeError::Refused(status)) => Err(status),
            Err(ChangeError::Missing) => Err(Status::not_found(format!("there is no job {id}"))),
            Err(ChangeError::Queue(error)) => Err(failed(error)),
        }
    }

    /// The job that this request has made before.
    async fn known_job(
        &self,
        request: &str,
        asked: &v1::CreateJobRequest,
    ) -> Result<Option<JobRecord>, Status> {
        let found = self.jobs().load(&id_of(request)).await.map_err(failed)?;
        let Some(record) = found.map(|found| found.record) else {
            return Ok(None);
        };
        let is_same = record.request == request
            && Some(&record.spec) == asked.spec.as_ref()
            && record.reason == asked.reason
            && record.rate == asked.rate;
        match is_same {
            true => Ok(Some(record)),
            false => Err(Status::already_exists(format!(
                "request_id: it has made job {}, which is another",
                record.id
            ))),
        }
    }

    async fn ensure_place(&self) -> Result<(), Status> {
        if self.jobs().count_open().await.map_err(failed)? < MAX_OPEN {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "{MAX_OPEN} jobs are not over: wait for one, or cancel one"
        )))
    }
}

/// The answer where no job that is over can make room.
fn no_room() -> Status {
    let why = "there is no room for another job, and none that is over can make some: wait for one, cancel one, or raise `queue.retention.bytes`, of which a twentieth is for jobs on a cluster";
    Status::resource_exhausted(why)
}

fn ensure_not_over(job: &JobRecord) -> Result<(), Status> {
    if !job.state.is_over() {
        return Ok(());
    }
    let state = job.state.as_str();
    Err(Status::failed_precondition(format!(
        "job {} is over: {state}",
        job.id
    )))
}

fn created(job: &JobRecord, existed: bool) -> v1::CreateJobResponse {
    v1::CreateJobResponse {
        job: Some(job.described()),
        existed,
    }
}

/// The place of a job in the list: its time and its id.
fn place(token: &str) -> Result<Option<(Timestamp, String)>, Status> {
    if token.is_empty() {
        return Ok(None);
    }
    let read = || {
        let (at, id) = token.split_once('~')?;
        let at = Timestamp::from_nanosecond(at.parse().ok()?).ok()?;
        Some((at, id.to_owned()))
    };
    let expected = "page_token: expected that of the answer before";
    read().map(Some).ok_or_else(|| wrong(expected))
}

/// True if a job comes after this place: the newest come first.
fn is_behind(job: &JobRecord, (at, id): &(Timestamp, String)) -> bool {
    (job.created_at, job.id.as_str()) < (*at, id.as_str())
}
