//! The thread that serves a spool: everybody who waits shares one fsync.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use event_model::{Clock, Event};
use fail::fail_point;
use queue::{Quarantined, QueueError};
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use crate::beside::quarantined;
use crate::file::door::mark_untrusted;
use crate::file::failure::{self, Failure};
use crate::file::held::Place;
use crate::file::rows::nanos;
use crate::shared::lock;
use crate::spool::rows;
use crate::spool::{Acknowledged, Kept, OnKept, Shared};
use crate::writing::housekeeping::{checkpoint, used_bytes};

/// Most tasks in one transaction.
const MAX_GROUP: usize = 512;

/// How long an acknowledgement may wait for a write that it can share.
const TICK: Duration = Duration::from_millis(200);

/// How often the file is weighed: what was removed makes room.
const WEIGH: Duration = Duration::from_secs(1);

/// Share of the limit, in percent, from which somebody should know.
const ALARM_PERCENT: u64 = 70;

type Reply<T> = oneshot::Sender<Result<T, QueueError>>;
type Run = Box<dyn FnOnce(&Connection) -> rusqlite::Result<()> + Send>;

/// What is asked of the thread.
pub(crate) enum Task<W> {
    Keep(Event, W, Reply<Kept>),
    KeepBody(Quarantined, Reply<()>),
    Acknowledged(Vec<Acknowledged>),
    Run(Run),
    Close,
}

pub(crate) struct Worker<W> {
    sql: Connection,
    place: Arc<Place>,
    path: PathBuf,
    limit: u64,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    on_kept: OnKept<W>,
    acknowledged: Vec<Acknowledged>,
    noted: Instant,
    next_weighing: Instant,
    has_alarmed: bool,
}

impl<W: Send> Worker<W> {
    pub(crate) fn new(
        sql: Connection,
        place: Arc<Place>,
        path: PathBuf,
        limit: u64,
        shared: Arc<Shared>,
        clock: Arc<dyn Clock>,
        on_kept: OnKept<W>,
    ) -> Self {
        let (acknowledged, now) = (Vec::new(), Instant::now());
        Self {
            sql,
            place,
            path,
            limit,
            shared,
            clock,
            on_kept,
            acknowledged,
            noted: now,
            next_weighing: now,
            has_alarmed: false,
        }
    }

    /// Runs until closed, or until nobody is left to ask.
    pub(crate) fn run(mut self, inbox: &Receiver<Task<W>>) {
        loop {
            let (group, is_over) = next_group(inbox);
            self.write(group);
            self.look_after();
            if is_over {
                self.noted -= TICK;
                self.write(Vec::new());
                return;
            }
        }
    }

    fn write(&mut self, group: Vec<Task<W>>) {
        *lock(&self.shared.working_since) = Some(Instant::now());
        let (mut keeps, mut bodies, mut runs) = (Vec::new(), Vec::new(), Vec::new());
        for task in group {
            match task {
                Task::Keep(event, waiter, reply) => {
                    self.shared.waiting.fetch_sub(rows::weight(&event), Ordering::AcqRel);
                    // Whoever gave up was told, or said, that it was not kept.
                    if !reply.is_closed() {
                        keeps.push((event, waiter, reply));
                    }
                }
                Task::KeepBody(body, reply) => {
                    self.shared.waiting.fetch_sub(body.body.len() as u64, Ordering::AcqRel);
                    if !reply.is_closed() {
                        bodies.push((body, reply));
                    }
                }
                Task::Acknowledged(rows) => self.acknowledged.extend(rows),
                Task::Run(run) => runs.push(run),
                Task::Close => {}
            }
        }
        // Whoever reads, reads what was noted too.
        let notes = !self.acknowledged.is_empty() && !runs.is_empty();
        if !keeps.is_empty() || !bodies.is_empty() || notes || self.is_time_to_note() {
            self.keep(keeps, bodies);
        }
        if let Err(error) = self.run_all(runs) {
            // Of a file that has failed nothing more is said: what is in it can still be read.
            if lock(&self.shared.failure).is_none() {
                self.note(&failure::of_write(&error, &self.path));
            }
        }
        *lock(&self.shared.working_since) = None;
    }

    /// Each by itself: what one of them meets is not the others' fault. What they
    /// write is not waited for: lost, it is done again.
    fn run_all(&mut self, runs: Vec<Run>) -> rusqlite::Result<()> {
        if runs.is_empty() {
            return Ok(());
        }
        let mut transaction = self.sql.transaction()?;
        let mut first = Ok(());
        for run in runs {
            let savepoint = transaction.savepoint()?;
            match run(&savepoint) {
                Ok(()) => savepoint.commit()?,
                Err(error) => first = first.and(Err(error)),
            }
        }
        transaction.commit()?;
        first
    }

    /// Acknowledgements alone are worth a write only now and then.
    fn is_time_to_note(&self) -> bool {
        let waited = self.noted.elapsed() >= TICK || self.acknowledged.len() >= MAX_GROUP;
        !self.acknowledged.is_empty() && waited
    }

    fn keep(&mut self, keeps: Vec<(Event, W, Reply<Kept>)>, bodies: Vec<(Quarantined, Reply<()>)>) {
        let failure = lock(&self.shared.failure).clone();
        let written = match failure {
            Some(why) => Err(Failure::Broken(why)),
            None if self.is_full() && (!keeps.is_empty() || !bodies.is_empty()) => Err(Failure::Full),
            None => self.commit_where_it_is(&keeps, &bodies),
        };
        match written {
            Ok(rows) if !self.place.is_there() => {
                // They are sent on from here while this process runs, and nobody is told more.
                self.note(&Failure::Gone);
                self.tell(rows, keeps, bodies, Err(Failure::Gone));
            }
            Ok(rows) => self.tell(rows, keeps, bodies, Ok(())),
            Err(failure) => {
                self.note(&failure);
                let error = QueueError::from(failure);
                keeps.into_iter().for_each(|(_, _, reply)| drop(reply.send(Err(error.again()))));
                bodies.into_iter().for_each(|(_, reply)| drop(reply.send(Err(error.again()))));
            }
        }
    }

    /// Commits into a file that is where the next process will look for it.
    fn commit_where_it_is(
        &mut self,
        keeps: &[(Event, W, Reply<Kept>)],
        bodies: &[(Quarantined, Reply<()>)],
    ) -> Result<Vec<(i64, bool)>, Failure> {
        if !self.place.is_there() {
            return Err(Failure::Gone);
        }
        self.commit(keeps, bodies).map_err(|error| failure::of_write(&error, &self.path))
    }

    fn commit(
        &mut self,
        keeps: &[(Event, W, Reply<Kept>)],
        bodies: &[(Quarantined, Reply<()>)],
    ) -> rusqlite::Result<Vec<(i64, bool)>> {
        let now = nanos(self.clock.now());
        let transaction = self.sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let kept =
            keeps.iter().map(|(event, ..)| rows::keep(&transaction, event)).collect::<Result<_, _>>()?;
        bodies.iter().try_for_each(|(body, _)| quarantined::keep(&transaction, body))?;
        rows::acknowledge(&transaction, &self.acknowledged, now)?;
        fail_point!("spool.fsync", |_| Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC),
            None
        )));
        transaction.commit()?;
        self.acknowledged.clear();
        self.noted = Instant::now();
        Ok(kept)
    }

    /// In the order of the rows: order begins here.
    fn tell(
        &self,
        rows: Vec<(i64, bool)>,
        keeps: Vec<(Event, W, Reply<Kept>)>,
        bodies: Vec<(Quarantined, Reply<()>)>,
        is_found: Result<(), Failure>,
    ) {
        let answer = || is_found.clone().map_err(QueueError::from);
        for ((row, is_duplicate), (event, waiter, reply)) in rows.into_iter().zip(keeps) {
            if !is_duplicate {
                self.shared.bytes.fetch_add(rows::weight(&event), Ordering::Relaxed);
                (self.on_kept)(row, event, waiter);
            }
            let _ = reply.send(answer().map(|()| Kept { row, is_duplicate }));
        }
        bodies.into_iter().for_each(|(_, reply)| drop(reply.send(answer())));
    }

    fn is_full(&self) -> bool {
        self.shared.bytes.load(Ordering::Relaxed) >= self.limit
    }

    fn note(&self, failure: &Failure) {
        match failure {
            Failure::Full if self.shared.is_full.swap(true, Ordering::AcqRel) => {}
            Failure::Full => tracing::error!(
                limit = self.limit,
                "the spool is full: events go to the queue directly, or are refused"
            ),
            Failure::Gone | Failure::Refused(_) if self.shared.is_impeded.swap(true, Ordering::AcqRel) => {}
            Failure::Gone => tracing::error!(
                file = %self.path.display(),
                process = std::process::id(),
                "the spool's file was removed, renamed or replaced while it was served: events go to the queue directly; what it holds is forwarded while this process runs"
            ),
            Failure::Refused(error) => tracing::error!(%error, "the spool's file can't be written to now"),
            Failure::Busy => tracing::warn!("another process held the spool's file for too long"),
            Failure::Broken(why) => self.fail(why),
        }
    }

    /// A failed fsync is final: nothing this file says later would be true.
    fn fail(&self, why: &str) {
        let mut failed = lock(&self.shared.failure);
        if failed.is_none() {
            tracing::error!(
                error = why,
                "the spool's file can't be trusted any more: events go to the queue directly; restart to begin a new one"
            );
            mark_untrusted(&self.path, why);
            if let Err(error) = self.sql.pragma_update(None, "query_only", true) {
                tracing::error!(%error, "the spool's file can't be kept from being written to");
            }
        }
        failed.get_or_insert_with(|| why.to_owned());
    }

    fn look_after(&mut self) {
        let now = Instant::now();
        if now < self.next_weighing || lock(&self.shared.failure).is_some() {
            return;
        }
        self.next_weighing = now + WEIGH;
        if !self.place.is_there() {
            return self.note(&Failure::Gone);
        }
        let looked = checkpoint(&self.sql, &self.path).and_then(|()| self.weigh());
        if let Err(error) = looked {
            self.note(&failure::of_write(&error, &self.path));
        }
    }

    fn weigh(&mut self) -> rusqlite::Result<()> {
        let used = used_bytes(&self.sql)?;
        self.shared.bytes.store(used, Ordering::Relaxed);
        let is_high = used.saturating_mul(100) >= self.limit.saturating_mul(ALARM_PERCENT);
        if is_high && !self.has_alarmed {
            tracing::error!(used, limit = self.limit, "the spool is over {ALARM_PERCENT} % of its bytes");
        }
        self.has_alarmed = is_high;
        let is_impeded = self.shared.is_impeded.load(Ordering::Acquire);
        // A full disk is tried again by writing.
        if (is_impeded || self.shared.is_full.load(Ordering::Acquire)) && used < self.limit {
            crate::file::schema::set_meta(&self.sql, "probe", nanos(self.clock.now()))?;
            self.shared.is_full.store(false, Ordering::Release);
            self.shared.is_impeded.store(false, Ordering::Release);
            tracing::info!("the spool can be written to again");
        }
        Ok(())
    }
}

/// Waits for one task, then takes what else is there. Says whether it is over.
fn next_group<W>(inbox: &Receiver<Task<W>>) -> (Vec<Task<W>>, bool) {
    let mut group = Vec::new();
    let mut next = match inbox.recv_timeout(TICK) {
        Ok(task) => Some(task),
        Err(RecvTimeoutError::Timeout) => return (group, false),
        Err(RecvTimeoutError::Disconnected) => return (group, true),
    };
    while let Some(task) = next.take() {
        if matches!(task, Task::Close) {
            return (group, true);
        }
        group.push(task);
        if group.len() < MAX_GROUP {
            next = inbox.try_recv().ok();
        }
    }
    (group, false)
}
