//! The thread that writes to a file.
//!
//! A caller that wants something written hands in a [`Job`]. The writer takes all that wait,
//! applies them in one transaction, and answers them after its fsync: the more there is to do,
//! the less each job costs.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use fail::fail_point;
use queue::QueueError;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use crate::failure::Failure;
use crate::held_file::FileLocation;
use crate::inbox::{Job, JobReceiver, Jobs, Message, ReadTask};
use crate::status::{FileStatus, PanicGuard};
use crate::wal::{FOR_READERS, Log};

/// Largest number of jobs in one transaction: beyond this, one more job delays the first ones by
/// more than it saves itself.
const MAX_GROUP: usize = 512;

/// Interval between two rounds of housekeeping while nothing is written.
const TICK: Duration = Duration::from_millis(500);

/// Longest time that a job which can wait does so, for a write that it can share.
const SHARES_WITHIN: Duration = Duration::from_millis(200);

/// The work of a file's owner on the writer's thread, beside the writing of jobs.
pub trait Owner: Send + 'static {
    /// The owner's kind of job.
    type Jobs: Jobs;

    /// Begins a group, in its transaction.
    ///
    /// # Errors
    /// If SQLite reports an error: the group fails.
    fn begin<'w>(
        &'w mut self,
        sql: &'w Connection,
    ) -> rusqlite::Result<<Self::Jobs as Jobs>::Store<'w>>;

    /// Ends a group, in its transaction.
    ///
    /// # Errors
    /// If SQLite reports an error: the group fails.
    fn end(&mut self, _sql: &Connection) -> rusqlite::Result<()> {
        Ok(())
    }

    /// Called after a group was committed, before its jobs are answered.
    fn committed(&mut self) {}

    /// Called after a group was rolled back.
    fn rolled_back(&mut self) {}

    /// Called after the jobs of a group were answered.
    fn answered(&mut self, _wakes_reader: bool) {}

    /// Does what is due between groups; `true` if there is more to do. `log` is the file's log.
    ///
    /// # Errors
    /// If SQLite reports an error.
    fn housekeep(
        &mut self,
        sql: &mut Connection,
        log: &mut Log,
        now: Instant,
    ) -> rusqlite::Result<bool>;

    /// Writes what the next process that opens the file needs to know.
    fn close(&mut self, _sql: &Connection) {}
}

/// A group of jobs.
type Group<O> = Vec<Box<dyn Job<<O as Owner>::Jobs>>>;

/// The thread that writes, and its state.
#[derive(Debug)]
pub struct Writer<O: Owner> {
    sql: Connection,
    owner: O,
    status: Arc<FileStatus>,
    place: Arc<FileLocation>,
    log: Log,
    pending: Pending<O>,
    next_probe: Instant,
    is_read_only: bool,
    /// True once what a removed log held is in the file.
    is_log_saved: bool,
}

/// Jobs that are not written yet.
struct Pending<O: Owner> {
    jobs: Group<O>,
    until: Instant,
}

impl<O: Owner> Writer<O> {
    /// Starts to write what is handed in, on a thread of this name. The thread runs until it is
    /// closed, or nobody is left who could hand something in.
    ///
    /// # Errors
    /// If the log can't be followed, or no thread can be started.
    pub fn start(
        name: &str,
        mut sql: Connection,
        place: Arc<FileLocation>,
        jobs: JobReceiver<O::Jobs>,
        owner: O,
    ) -> io::Result<JoinHandle<()>> {
        let log = Log::follow(&mut sql).map_err(io::Error::other)?;
        let JobReceiver { messages, status } = jobs;
        let now = Instant::now();
        let pending = Pending {
            jobs: Vec::new(),
            until: now,
        };
        let guard = PanicGuard(Arc::clone(&status));
        let writer = Self {
            sql,
            owner,
            status,
            place,
            log,
            pending,
            next_probe: now,
            is_read_only: false,
            is_log_saved: false,
        };
        Builder::new().name(name.to_owned()).spawn(move || {
            let _guard = guard;
            writer.run(&messages);
        })
    }

    fn run(mut self, inbox: &Receiver<Message<O::Jobs>>) {
        let mut has_more = false;
        loop {
            let arrived = InboxBatch::next(
                inbox,
                if has_more {
                    Duration::ZERO
                } else {
                    self.longest_sleep()
                },
            );
            let closing = self.serve(arrived);
            has_more = self.run_housekeeping(Instant::now());
            match closing {
                Some(Closing::Asked(reply)) => return self.close(inbox, reply),
                Some(Closing::Abandoned) => return self.write_pending(),
                None => {}
            }
        }
    }

    fn longest_sleep(&self) -> Duration {
        match self.pending.jobs.is_empty() {
            true => TICK,
            false => self
                .pending
                .until
                .saturating_duration_since(Instant::now())
                .min(TICK),
        }
    }

    fn serve(&mut self, arrived: InboxBatch<O::Jobs>) -> Option<Closing> {
        let InboxBatch {
            mut jobs,
            looks,
            closing,
        } = arrived;
        let is_asked = jobs.iter().any(|job| !job.can_wait());
        if self.pending.jobs.is_empty() {
            self.pending.until = Instant::now() + SHARES_WITHIN;
        }
        // Appended in the order in which they were handed in.
        self.pending.jobs.append(&mut jobs);
        let is_time = self.pending.jobs.len() >= MAX_GROUP || Instant::now() >= self.pending.until;
        // A reader also sees the jobs that waited.
        if is_asked || !looks.is_empty() || is_time {
            self.write_pending();
        }
        for look in looks {
            self.status.begin_writing();
            look(&self.sql);
            self.status.end_writing();
        }
        closing
    }

    fn write_pending(&mut self) {
        let group = std::mem::take(&mut self.pending.jobs);
        self.write(group);
    }

    fn write(&mut self, mut group: Group<O>) {
        group.retain(|job| !job.is_given_up());
        if group.is_empty() {
            return;
        }
        let changes = self.sql.total_changes();
        self.status.begin_writing();
        let result = self.commit(&mut group);
        self.status.end_writing();
        match &result {
            Ok(()) => {
                self.owner.committed();
                group.iter_mut().for_each(|job| job.committed());
            }
            Err(_) => {
                self.owner.rolled_back();
                group.iter_mut().for_each(|job| job.undo());
            }
        }
        // While it is known to be full, the probe tries that.
        if result == Err(Failure::Full) && !self.status.is_impeded() && self.make_room() {
            return self.write(group);
        }
        if group.len() > 1 && matches!(result, Err(Failure::Refused(_))) {
            // One of the jobs is the cause, and the others must not fail because of it.
            return group.into_iter().for_each(|job| self.write(vec![job]));
        }
        if matches!(result, Err(Failure::Full | Failure::Busy))
            && group.iter().any(|job| job.can_wait())
            && group.iter().any(|job| !job.can_wait())
        {
            // The jobs for which nobody waits may be the cause: they must not fail the others.
            let (waiting, asked): (Vec<_>, Vec<_>) =
                group.into_iter().partition(|job| job.can_wait());
            waiting.into_iter().for_each(|job| self.wait_again(job));
            return self.write(asked);
        }
        let is_found = self.place.is_there();
        match &result {
            // A group without changes does not tell whether there is room.
            Ok(()) if is_found && self.sql.total_changes() > changes => self.status.note_written(),
            Ok(()) => {}
            Err(failure) => self.report_failure(failure),
        }
        if !is_found {
            self.report_failure(&Failure::Gone);
        }
        self.answer(group, &result, is_found);
    }

    fn answer(&mut self, group: Group<O>, result: &Result<(), Failure>, is_found: bool) {
        let wakes_reader = result.is_err() || group.iter().any(|job| job.wakes_reader());
        let may_pass = !matches!(result, Err(Failure::Broken(_)));
        for job in group {
            match result {
                Err(_) if job.can_wait() && may_pass => self.wait_again(job),
                Ok(()) if !is_found && job.is_a_promise() => job.finish(Err(Failure::Gone.into())),
                result => job.finish(result.clone().map_err(QueueError::from)),
            }
        }
        self.owner.answered(wakes_reader);
    }

    fn wait_again(&mut self, job: Box<dyn Job<O::Jobs>>) {
        self.pending.until = Instant::now() + SHARES_WITHIN;
        self.pending.jobs.push(job);
    }

    /// Writes a group, if the file is where the next process will look for it.
    fn commit(&mut self, group: &mut Group<O>) -> Result<(), Failure> {
        if let Some(why) = self.status.failure() {
            return Err(Failure::Broken(why));
        }
        if !self.place.is_there() {
            return Err(Failure::Gone);
        }
        self.transact(group)
            .map_err(|error| Failure::of_write(&error, self.status.path()))
    }

    fn transact(&mut self, group: &mut Group<O>) -> rusqlite::Result<()> {
        let transaction = self
            .sql
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut store = self.owner.begin(&transaction)?;
        group.iter_mut().try_for_each(|job| job.apply(&mut store))?;
        drop(store);
        self.owner.end(&transaction)?;
        fail_point!("commit.before");
        fail_point!("commit.full", |_| {
            let full = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
            Err(rusqlite::Error::SqliteFailure(full, None))
        });
        fail_point!("commit.fsync", |_| {
            let failed = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
            Err(rusqlite::Error::SqliteFailure(failed, None))
        });
        transaction.commit()?;
        fail_point!("commit.after");
        Ok(())
    }

    /// Does the housekeeping; returns whether there is more to do at once.
    fn run_housekeeping(&mut self, now: Instant) -> bool {
        if self.status.failure().is_some() {
            self.never_write_again();
            return false;
        }
        if !self.place.is_there() {
            self.report_failure(&Failure::Gone);
            self.save_lost_log();
            return false;
        }
        self.is_log_saved = false;
        if self.status.is_impeded() && now >= self.next_probe {
            self.next_probe = now + TICK;
            self.probe();
        }
        self.status.begin_writing();
        let looked = self.log.checkpoint(&self.sql);
        let kept = looked.and_then(|()| self.owner.housekeep(&mut self.sql, &mut self.log, now));
        self.status.end_writing();
        kept.unwrap_or_else(|error| {
            self.report_failure(&Failure::of_write(&error, self.status.path()));
            false
        })
    }

    /// Tries whether there is room again, so that the process can become ready again while
    /// nothing is handed in.
    fn probe(&mut self) {
        self.status.begin_writing();
        let written = self.sql.execute(
            "INSERT INTO meta VALUES ('probe', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1",
            [],
        );
        self.status.end_writing();
        match written {
            Ok(_) if self.place.is_there() => self.status.note_written(),
            Ok(_) => self.report_failure(&Failure::Gone),
            Err(error) => {
                let failure = Failure::of_write(&error, self.status.path());
                self.report_failure(&failure);
                if failure == Failure::Full {
                    self.make_room();
                }
            }
        }
    }

    /// Uses the room of the log anew where there is no other: settled events may leave as much as
    /// is needed in the file itself.
    fn make_room(&mut self) -> bool {
        self.status.begin_writing();
        let made = self.log.make_room(&self.sql);
        self.status.end_writing();
        made.unwrap_or_else(|error| {
            self.report_failure(&Failure::of_write(&error, self.status.path()));
            false
        })
    }

    /// Writes into the file what it misses if its log was removed: the next process would begin
    /// with a new log.
    fn save_lost_log(&mut self) {
        if self.is_log_saved || !self.place.has_lost_log() {
            return;
        }
        self.status.begin_writing();
        let saved = Log::save(&self.sql);
        self.status.end_writing();
        match saved {
            Ok(is_saved) => self.is_log_saved = is_saved,
            Err(error) => {
                self.report_failure(&Failure::of_write(&error, self.status.path()));
            }
        }
        if self.is_log_saved {
            tracing::error!("{}", self.status.messages().log_removed);
        }
    }

    fn report_failure(&mut self, failure: &Failure) {
        self.status.note(failure);
        if self.status.failure().is_some() {
            self.never_write_again();
        }
    }

    /// Makes the connection read-only: after a failed fsync, no answer to a write could be
    /// trusted. What is in the file can still be read.
    fn never_write_again(&mut self) {
        if !std::mem::replace(&mut self.is_read_only, true)
            && let Err(error) = self.sql.pragma_update(None, "query_only", true)
        {
            tracing::error!(%error, "the file can't be kept from being written to");
        }
    }

    fn close(mut self, inbox: &Receiver<Message<O::Jobs>>, reply: oneshot::Sender<()>) {
        // The answers to the last group may have caused more jobs, which are written too.
        loop {
            let left = InboxBatch::all(inbox);
            if left.jobs.is_empty() && left.looks.is_empty() {
                break;
            }
            self.serve(left);
        }
        self.write_pending();
        if self.status.failure().is_none() {
            self.save_lost_log();
        }
        if self.status.failure().is_none() && self.place.is_there() {
            self.owner.close(&self.sql);
            // A reader delays the end of the process for no longer than this.
            let bounded = self.sql.busy_timeout(FOR_READERS);
            let emptied = bounded.and_then(|()| {
                self.sql
                    .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            });
            if let Err(error) = emptied {
                self.report_failure(&Failure::of_write(&error, self.status.path()));
            }
        }
        drop(self);
        let _ = reply.send(());
    }
}

impl<O: Owner> fmt::Debug for Pending<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("jobs", &self.jobs.len())
            .finish_non_exhaustive()
    }
}

enum Closing {
    Asked(oneshot::Sender<()>),
    /// Every handle is gone, so nobody waits for an answer.
    Abandoned,
}

/// Messages that were handed in, and are dealt with together.
struct InboxBatch<J: Jobs> {
    jobs: Vec<Box<dyn Job<J>>>,
    looks: Vec<ReadTask>,
    closing: Option<Closing>,
}

impl<J: Jobs> InboxBatch<J> {
    fn nothing() -> Self {
        Self {
            jobs: Vec::new(),
            looks: Vec::new(),
            closing: None,
        }
    }

    /// Waits for one message, then takes all others that are there.
    fn next(inbox: &Receiver<Message<J>>, wait: Duration) -> Self {
        let mut arrived = Self::nothing();
        let mut next = match inbox.recv_timeout(wait) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => return arrived,
            Err(RecvTimeoutError::Disconnected) => {
                arrived.closing = Some(Closing::Abandoned);
                return arrived;
            }
        };
        while let Some(message) = next.take() {
            arrived.take(message);
            if arrived.closing.is_none() && arrived.jobs.len() + arrived.looks.len() < MAX_GROUP {
                next = inbox.try_recv().ok();
            }
        }
        arrived
    }

    /// Takes all messages that are there.
    fn all(inbox: &Receiver<Message<J>>) -> Self {
        let mut arrived = Self::nothing();
        inbox.try_iter().for_each(|message| arrived.take(message));
        arrived
    }

    fn take(&mut self, message: Message<J>) {
        match message {
            Message::Job(job) => self.jobs.push(job),
            Message::Look(look) => self.looks.push(look),
            Message::Close(reply) => self.closing = Some(Closing::Asked(reply)),
        }
    }
}
