//! Jobs in the fact store: a record each, a marker for those that are not over, and the full
//! parts of their logs.

use std::cmp::Reverse;

use event_model::Timestamp;
use queue::{Fact, FactStore, QueueError};

use super::items::ItemLog;
use super::record::{ID_DIGITS, JobRecord, JobState};

/// Most jobs that are not over. Each has a record that is written again and again.
pub(crate) const MAX_OPEN: usize = 100;

/// Most jobs that are kept; beyond it, the oldest that are over make room.
const MAX_JOBS: usize = 1_000;

/// Most failures and ranges of all jobs together, each some 200 bytes at most: the store of a
/// cluster has room for 128 MiB.
const MAX_PLACES: u64 = 200_000;

/// Part of the jobs that are over which makes room at once, as its inverse.
const MAKES_ROOM: usize = 8;

/// Most tries of a change that others make at the same time.
const MAX_TRIES: usize = 20;

const RECORDS: &str = "job";
const OPEN: &str = "job-open";
const PARTS: &str = "job-part";

/// The jobs of one queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobStore<'s>(pub(crate) &'s dyn FactStore);

/// A record, and its version in the store.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) record: JobRecord,
    pub(crate) version: u64,
}

/// The reason why a change was not made.
#[derive(Debug)]
pub(crate) enum ChangeError<E> {
    /// There is no such job.
    Missing,
    /// The change is not allowed.
    Refused(E),
    Queue(QueueError),
}

impl<E> From<QueueError> for ChangeError<E> {
    fn from(error: QueueError) -> Self {
        Self::Queue(error)
    }
}

impl JobStore<'_> {
    /// The store's time.
    pub(crate) async fn now(&self) -> Result<Timestamp, QueueError> {
        self.0.now().await
    }

    /// The record with this whole id.
    pub(crate) async fn load(&self, id: &str) -> Result<Option<Loaded>, QueueError> {
        let found = self.0.get_versioned(&name(RECORDS, id)).await?;
        Ok(found.and_then(|(bytes, version)| {
            let record = JobRecord::read(&bytes)?;
            Some(Loaded { record, version })
        }))
    }

    /// The record with this id, or the only one whose id begins so.
    pub(crate) async fn find(&self, id: &str) -> Result<Option<Loaded>, QueueError> {
        let is_id = !id.is_empty() && id.len() <= ID_DIGITS;
        if !is_id || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let id = id.to_ascii_lowercase();
        if id.len() == ID_DIGITS {
            return self.load(&id).await;
        }
        let all = self.0.entries(RECORDS).await?;
        let mut ids = all.iter().filter_map(|fact| id_in(fact, RECORDS));
        match (
            ids.find(|found| found.starts_with(&id)),
            ids.find(|found| found.starts_with(&id)),
        ) {
            (Some(only), None) => self.load(only).await,
            _ => Ok(None),
        }
    }

    /// Every job, the newest first.
    pub(crate) async fn all(&self) -> Result<Vec<JobRecord>, QueueError> {
        let facts = self.0.entries(RECORDS).await?;
        let read = facts.iter().filter_map(|fact| JobRecord::read(&fact.value));
        let mut all: Vec<_> = read.collect();
        all.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        Ok(all)
    }

    /// The ids of the jobs that are not over, with the times at which they were marked.
    pub(crate) async fn open(&self) -> Result<Vec<(String, Timestamp)>, QueueError> {
        let markers = self.0.entries(OPEN).await?;
        let read = |fact: &Fact| Some((id_in(fact, OPEN)?.to_owned(), fact.set_at));
        let mut open: Vec<_> = markers.iter().filter_map(read).collect();
        open.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        Ok(open)
    }

    /// Stores a new job. Returns the one that is there if the request came before. Where the store
    /// is full, the oldest jobs that are over make room.
    ///
    /// # Errors
    /// [`QueueError::Full`] if no job that is over is left, and there is still no room.
    pub(crate) async fn create(&self, record: JobRecord) -> Result<(JobRecord, bool), QueueError> {
        self.prune().await?;
        loop {
            match self.store_new(&record).await {
                Err(QueueError::Full) if self.make_room().await? => {}
                Err(QueueError::Full) => {
                    self.close(&record.id).await?;
                    return Err(QueueError::Full);
                }
                stored => return stored,
            }
        }
    }

    async fn store_new(&self, record: &JobRecord) -> Result<(JobRecord, bool), QueueError> {
        // Marked first: a marker without a record is removed later, and a record without a
        // marker would never be worked on.
        self.0.set(&name(OPEN, &record.id), "".into()).await?;
        let place = name(RECORDS, &record.id);
        if self.0.compare_and_set(&place, record.bytes(), 0).await? {
            return Ok((record.clone(), false));
        }
        match self.load(&record.id).await? {
            Some(found) => Ok((found.record, true)),
            None => Err(QueueError::unavailable(
                "creating a job",
                "another version of this program has one of this name",
            )),
        }
    }

    /// Removes the oldest of the jobs that are over. Returns `false` if there is none.
    pub(crate) async fn make_room(&self) -> Result<bool, QueueError> {
        let mut over = self.all().await?;
        over.retain(|job| job.state.is_over());
        over.sort_by_key(|job| job.updated_at);
        // Some at once: a store with much in it is read again for each step.
        let some = over.len().div_ceil(MAKES_ROOM);
        for job in over.iter().take(some) {
            self.remove(job).await?;
        }
        Ok(some > 0)
    }

    /// Replaces a record if nobody else did since.
    pub(crate) async fn replace(
        &self,
        record: &JobRecord,
        version: u64,
    ) -> Result<bool, QueueError> {
        let place = name(RECORDS, &record.id);
        self.0
            .compare_and_set(&place, record.bytes(), version)
            .await
    }

    /// Changes a record, whatever others do to it meanwhile.
    pub(crate) async fn change<E>(
        &self,
        id: &str,
        change: impl Fn(&mut JobRecord) -> Result<(), E>,
    ) -> Result<JobRecord, ChangeError<E>> {
        for _ in 0..MAX_TRIES {
            let found = self.load(id).await?;
            let Loaded {
                mut record,
                version,
            } = found.ok_or(ChangeError::Missing)?;
            change(&mut record).map_err(ChangeError::Refused)?;
            if self.replace(&record, version).await? {
                return Ok(record);
            }
        }
        let why = "others change it all the time";
        Err(QueueError::unavailable("changing a job", why).into())
    }

    /// The number of jobs that are not over. Failed ones stay marked for a while, and do not count.
    pub(crate) async fn count_open(&self) -> Result<usize, QueueError> {
        let open = self.open().await?;
        if open.len() < MAX_OPEN {
            return Ok(open.len());
        }
        let mut count = 0;
        for (id, _) in open {
            // One without a record is just being made.
            let found = self.load(&id).await?;
            count += usize::from(found.is_none_or(|found| !found.record.state.is_over()));
        }
        Ok(count)
    }

    /// Takes the marker of a job that is over.
    pub(crate) async fn close(&self, id: &str) -> Result<(), QueueError> {
        self.0.unset(&name(OPEN, id)).await
    }

    /// The version of a part of a job's log, 0 if there is none.
    pub(crate) async fn part_version(&self, id: &str, part: u32) -> Result<u64, QueueError> {
        let found = self.0.get_versioned(&part_name(id, part)).await?;
        Ok(found.map_or(0, |(_, version)| version))
    }

    /// Stores a part of a job's log, if its version is still this one.
    pub(crate) async fn store_part(
        &self,
        id: &str,
        part: u32,
        log: &ItemLog,
        version: u64,
    ) -> Result<bool, QueueError> {
        let bytes = serde_json::to_vec(log).unwrap_or_default();
        self.0
            .compare_and_set(&part_name(id, part), bytes.into(), version)
            .await
    }

    /// The whole log of a job, part by part.
    pub(crate) async fn log(&self, record: &JobRecord) -> Result<Vec<ItemLog>, QueueError> {
        let mut parts = Vec::new();
        for part in 0..record.parts {
            let found = self.0.get(&part_name(&record.id, part)).await?;
            let read = found.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            parts.push(read.unwrap_or_default());
        }
        parts.push(record.log.clone());
        Ok(parts)
    }

    /// Keeps a job and its log for as long from now as if it were new.
    pub(crate) async fn keep(&self, id: &str) -> Result<(), QueueError> {
        let Some(Loaded { record, version }) = self.load(id).await? else {
            return Ok(());
        };
        for part in 0..record.parts {
            let place = part_name(id, part);
            if let Some((bytes, version)) = self.0.get_versioned(&place).await? {
                self.0.compare_and_set(&place, bytes, version).await?;
            }
        }
        if !record.state.is_over() {
            self.0.set(&name(OPEN, id), "".into()).await?;
        }
        // If somebody else was faster, it is kept as long.
        self.replace(&record, version).await.map(drop)
    }

    /// Removes the oldest jobs that are over, if there are too many, or too much of them.
    pub(crate) async fn prune(&self) -> Result<(), QueueError> {
        let mut all = self.all().await?;
        all.sort_by_key(|job| (job.state.is_over(), Reverse(job.updated_at)));
        let mut jobs = 0;
        let mut places = 0;
        for job in all {
            jobs += 1;
            places += u64::from(job.kept.failures + job.kept.ranges);
            if job.state.is_over() && (jobs > MAX_JOBS || places > MAX_PLACES) {
                self.remove(&job).await?;
            }
        }
        Ok(())
    }

    async fn remove(&self, job: &JobRecord) -> Result<(), QueueError> {
        for part in 0..job.parts {
            self.0.unset(&part_name(&job.id, part)).await?;
        }
        self.close(&job.id).await?;
        self.0.unset(&name(RECORDS, &job.id)).await
    }

    /// Ends a job by hand: its record, and then its marker.
    pub(crate) async fn end<E>(
        &self,
        id: &str,
        change: impl Fn(&mut JobRecord) -> Result<(), E>,
    ) -> Result<JobRecord, ChangeError<E>> {
        let record = self.change(id, change).await?;
        debug_assert_ne!(record.state, JobState::Running);
        self.close(id).await?;
        // What it could not do is kept as long as the job. If that fails, it goes earlier.
        let _ = self.keep(id).await;
        Ok(record)
    }
}

fn name(word: &str, id: &str) -> String {
    format!("{word}.{id}")
}

fn part_name(id: &str, part: u32) -> String {
    format!("{PARTS}.{id}.{part}")
}

/// The id in the name of a fact.
fn id_in<'f>(fact: &'f Fact, word: &str) -> Option<&'f str> {
    fact.name.strip_prefix(word)?.strip_prefix('.')
}
