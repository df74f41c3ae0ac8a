//! The record of a job, as it is stored.

use event_model::{Bytes, Timestamp};
use grpc::CallerOrigin;
use proto::v1;
use serde::{Deserialize, Serialize};

use super::items::{ItemLog, ItemResult, Kept, shortened};
use super::wire;

/// The version of the encoding. A record of another version is left alone.
const VERSION: u32 = 1;

/// Most bytes of the record's words about its state.
const MAX_DETAIL: usize = 512;

/// A job, and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobRecord {
    version: u32,
    /// Its name: the beginning of `request`.
    pub(crate) id: String,
    /// Digest of the maker's name and its name for the request.
    pub(crate) request: String,
    #[serde(with = "wire")]
    pub(crate) spec: v1::JobSpec,
    /// What was counted when it was made.
    #[serde(with = "wire")]
    pub(crate) preview: v1::PreviewJobResponse,
    pub(crate) maker: Maker,
    /// The maker's words.
    pub(crate) reason: String,
    /// Most items in a second; 0 stands for no limit.
    pub(crate) rate: u32,
    pub(crate) created_at: Timestamp,
    pub(crate) state: JobState,
    pub(crate) detail: String,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) updated_at: Timestamp,
    pub(crate) executor: Option<Executor>,
    /// Number of changes by executors, by which one tells whether its change was stored.
    pub(crate) step: u64,
    /// Of a replay: its number, 0 before it has one.
    #[serde(default)]
    pub(crate) replay_number: u32,
    /// The number up to which all items were claimed.
    pub(crate) after: u64,
    /// Items that an executor has begun, or is about to. After a crash some may be done.
    pub(crate) claimed: Vec<u64>,
    pub(crate) counts: JobCounts,
    /// Number of parts of the log of items that are full, each in a fact of its own.
    pub(crate) parts: u32,
    /// The last part.
    pub(crate) log: ItemLog,
    pub(crate) kept: Kept,
}

/// Who made a job, and on what ground.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Maker {
    pub(crate) name: String,
    origin: String,
}

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum JobState {
    /// It has not begun, or goes on when its turn comes.
    Waiting,
    /// An executor works on it, or worked on it when it died.
    Running,
    /// Held until somebody resumes it.
    Paused,
    /// Every item was looked at.
    Done,
    /// A person ended it.
    Cancelled,
    /// It can't go on.
    Failed,
}

/// The process that works on a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Executor {
    /// Tells one lease from another: whoever finds another's here has lost the job.
    pub(crate) token: String,
    /// `<host>:<process id>`.
    pub(crate) process: String,
}

/// Results in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobCounts {
    pub(crate) succeeded: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    pub(crate) unknown: u64,
    pub(crate) first_error: String,
}

impl JobCounts {
    /// Counts a result.
    pub(crate) fn count(&mut self, result: &ItemResult) {
        match result {
            ItemResult::Done => self.succeeded += 1,
            ItemResult::Skipped => self.skipped += 1,
            ItemResult::Unknown => self.unknown += 1,
            ItemResult::Failed(why) => {
                self.failed += 1;
                if self.first_error.is_empty() {
                    shortened(why).clone_into(&mut self.first_error);
                }
            }
        }
    }

    fn all(&self) -> u64 {
        self.succeeded + self.failed + self.skipped + self.unknown
    }
}

impl Maker {
    pub(crate) fn new(name: String, origin: CallerOrigin) -> Self {
        let origin = match origin {
            CallerOrigin::Listed => "listed",
            CallerOrigin::Anybody => "anybody",
            CallerOrigin::Queue => "queue",
        };
        Self {
            name,
            origin: origin.to_owned(),
        }
    }

    /// The ground on which it had its roles. An unknown word stands for a caller of the settings,
    /// who is looked up.
    pub(crate) fn origin(&self) -> CallerOrigin {
        match self.origin.as_str() {
            "anybody" => CallerOrigin::Anybody,
            "queue" => CallerOrigin::Queue,
            _ => CallerOrigin::Listed,
        }
    }
}

impl JobState {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// The state of this name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [
            Self::Waiting,
            Self::Running,
            Self::Paused,
            Self::Done,
            Self::Cancelled,
            Self::Failed,
        ]
        .into_iter()
        .find(|state| state.as_str() == name)
    }

    /// True if the job is over.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Failed)
    }
}

/// A job that somebody asks for.
#[derive(Clone, Debug)]
pub(crate) struct NewJob {
    pub(crate) request: String,
    pub(crate) spec: v1::JobSpec,
    pub(crate) preview: v1::PreviewJobResponse,
    pub(crate) maker: Maker,
    pub(crate) reason: String,
    pub(crate) rate: u32,
}

impl JobRecord {
    /// A job that waits for its turn.
    pub(crate) fn new(job: NewJob, now: Timestamp) -> Self {
        Self {
            version: VERSION,
            id: id_of(&job.request),
            request: job.request,
            spec: job.spec,
            preview: job.preview,
            maker: job.maker,
            reason: job.reason,
            rate: job.rate,
            created_at: now,
            state: JobState::Waiting,
            detail: String::new(),
            started_at: None,
            ended_at: None,
            updated_at: now,
            executor: None,
            step: 0,
            replay_number: 0,
            after: 0,
            claimed: Vec::new(),
            counts: JobCounts::default(),
            parts: 0,
            log: ItemLog::default(),
            kept: Kept::default(),
        }
    }

    /// The record in these bytes; `None` if another version wrote it.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(bytes).ok()?;
        (record.version == VERSION).then_some(record)
    }

    /// The bytes to store.
    pub(crate) fn bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// Changes the state, with its reason.
    pub(crate) fn set_state(&mut self, state: JobState, detail: &str, now: Timestamp) {
        self.state = state;
        self.detail = detail[..detail.floor_char_boundary(MAX_DETAIL)].to_owned();
        self.updated_at = now;
        if state.is_over() {
            self.ended_at = Some(now);
        }
    }

    /// Ends it, all items behind it. What was counted and never came was changed by others before
    /// its turn.
    pub(crate) fn finish(&mut self, now: Timestamp) {
        let missing = self.preview.count.saturating_sub(self.counts.all());
        self.counts.skipped += missing;
        self.set_state(JobState::Done, "", now);
    }

    /// True if this token's executor has it.
    pub(crate) fn is_of(&self, token: &str) -> bool {
        self.executor
            .as_ref()
            .is_some_and(|executor| executor.token == token)
    }

    /// The job as the contract has it.
    pub(crate) fn described(&self) -> v1::Job {
        let counts = &self.counts;
        v1::Job {
            id: self.id.clone(),
            spec: Some(self.spec.clone()),
            state: self.state.as_str().to_owned(),
            detail: self.detail.clone(),
            created_by: self.maker.name.clone(),
            created_at: Some(grpc::timestamp(self.created_at)),
            started_at: self.started_at.map(grpc::timestamp),
            ended_at: self.ended_at.map(grpc::timestamp),
            updated_at: Some(grpc::timestamp(self.updated_at)),
            reason: self.reason.clone(),
            rate: self.rate,
            cut_off: self.preview.cut_off,
            progress: Some(v1::BulkProgress {
                succeeded: counts.succeeded,
                failed: counts.failed,
                skipped: counts.skipped,
                total: self.preview.count,
                first_error: counts.first_error.clone(),
                unknown: counts.unknown,
            }),
            samples: self.preview.samples.clone(),
            executor: self
                .executor
                .as_ref()
                .map(|executor| executor.process.clone())
                .unwrap_or_default(),
            succeeded_ids: String::new(),
        }
    }
}

/// Digits of a job's id.
pub(crate) const ID_DIGITS: usize = 12;

/// The id of the job that a request makes.
pub(crate) fn id_of(request: &str) -> String {
    request.chars().take(ID_DIGITS).collect()
}
