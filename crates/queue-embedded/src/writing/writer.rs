//! The one thread that writes.
//!
//! Whoever wants something written hands in a [`Job`]. The writer takes all
//! that wait, applies them in one transaction, and answers them after its
//! fsync: the more there is to do, the less each pays.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use fail::fail_point;
use queue::QueueError;
use rusqlite::{Connection, TransactionBehavior};

use crate::beside::quarantined::quarantined_bytes;
use crate::file::failure::{self, Failure};
use crate::file::held::Place;
use crate::file::schema::{WORKING, last_position, set_meta};
use crate::shared::{Shared, lock};
use crate::writing::housekeeping::Housekeeping;
use crate::writing::queue_time::QueueTime;
use crate::writing::set_back::{self, LastLook};

/// Most jobs in one transaction: beyond this, one more costs the first ones
/// more waiting than it saves itself.
const MAX_GROUP: usize = 512;

/// How often the file is looked after while nothing is written.
const TICK: Duration = Duration::from_millis(500);

/// How often the time is written with what is, in nanoseconds.
const NOTE_EVERY: i64 = 1_000_000_000;

/// Something to be written.
pub(crate) trait Job: Send {
    /// Writes within the group's transaction. An error of SQLite fails the whole
    /// group, of which each job is then tried by itself; an answer of another kind
    /// is kept for [`Job::finish`].
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()>;

    /// Whether the tail reader may find something new, after this was applied. It
    /// is not woken for what only ends.
    fn feeds(&self) -> bool {
        true
    }

    /// Whether nobody waits for this any more, so that it must not be written: they
    /// were told that it was not.
    fn is_given_up(&self) -> bool {
        false
    }

    /// Whether it answers for something that must be found later: then it is not told of a
    /// commit into a file that is no longer at its place. What only moves is.
    fn is_a_promise(&self) -> bool {
        false
    }

    /// The group was rolled back: nothing counts that was applied.
    fn undo(&mut self) {}

    /// Tells whoever waits, after the commit or instead of it.
    fn finish(self: Box<Self>, committed: Result<(), QueueError>);
}

/// What a job writes to.
pub(crate) struct Store<'w> {
    pub(crate) sql: &'w Connection,
    /// The newest position given out, also in this group.
    pub(crate) last: &'w mut u64,
    pub(crate) shared: &'w Shared,
    pub(crate) now: i64,
}

/// What is asked of the writer.
pub(crate) enum Message {
    /// Write this.
    Job(Box<dyn Job>),
    /// Answer everything before this, then end.
    Close(tokio::sync::oneshot::Sender<()>),
}

pub(crate) struct Writer {
    pub(crate) sql: Connection,
    pub(crate) last: u64,
    pub(crate) seen_version: i64,
    pub(crate) next_probe: Instant,
    /// The time that was last written.
    pub(crate) noted: i64,
    /// When the clock was last looked at.
    pub(crate) looked: LastLook,
    pub(crate) shared: Arc<Shared>,
    pub(crate) housekeeping: Housekeeping,
    pub(crate) time: QueueTime,
    pub(crate) place: Arc<Place>,
}

impl Writer {
    /// Runs until closed. Everything handed in before is answered.
    pub(crate) fn run(mut self, inbox: &Receiver<Message>) {
        let mut has_more = false;
        loop {
            let (group, close) = next_group(inbox, if has_more { Duration::ZERO } else { TICK });
            if !group.is_empty() {
                self.write(group);
            }
            has_more = self.look_after(Instant::now());
            match close {
                Some(Closing::Asked(reply)) => return self.close(inbox, reply),
                Some(Closing::Abandoned) => return,
                None => {}
            }
        }
    }

    fn write(&mut self, mut group: Vec<Box<dyn Job>>) {
        group.retain(|job| !job.is_given_up());
        if group.is_empty() {
            return;
        }
        let (before, changes) = (self.last, self.sql.total_changes());
        *lock(&self.shared.writing_since) = Some(Instant::now());
        let result = match self.shared.failure() {
            Some(why) => Err(Failure::Broken(why)),
            None => self.commit(&mut group),
        };
        *lock(&self.shared.writing_since) = None;
        if result.is_err() {
            self.last = before;
            group.iter_mut().for_each(|job| job.undo());
        }
        if group.len() > 1 && matches!(result, Err(Failure::Refused(_))) {
            // One of them is why, and none of the others' fault.
            return group.into_iter().for_each(|job| self.write(vec![job]));
        }
        let is_found = self.place.is_there();
        match &result {
            Ok(()) => {
                self.shared.last.fetch_max(self.last, Ordering::AcqRel);
                // What changes nothing does not ask whether there is room.
                if is_found && self.sql.total_changes() > changes {
                    self.shared.is_impeded.store(false, Ordering::Release);
                }
            }
            Err(failure) => self.shared.note(failure),
        }
        if !is_found {
            self.shared.note(&Failure::Gone);
        }
        let feeds = result.is_err() || group.iter().any(|job| job.feeds());
        for job in group {
            match is_found || !job.is_a_promise() {
                true => job.finish(result.clone().map_err(QueueError::from)),
                false => job.finish(Err(Failure::Gone.into())),
            }
        }
        if feeds {
            self.shared.wake_feeder();
        }
    }

    /// Writes a group, into a file that is where the next process will look for it.
    fn commit(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), Failure> {
        if !self.place.is_there() {
            return Err(Failure::Gone);
        }
        self.transact(group).map_err(|error| failure::of_write(&error, &self.shared.path))
    }

    fn transact(&mut self, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
        let now = self.shared.now();
        let transaction = self.sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
        notice_other_writers(&transaction, &mut self.seen_version, &self.shared)?;
        // A release from quarantine, by whoever, takes a position.
        self.last = self.last.max(self.shared.last.load(Ordering::Acquire));
        let mut store = Store { sql: &transaction, last: &mut self.last, shared: &self.shared, now };
        for job in group {
            job.apply(&mut store)?;
        }
        if now.saturating_sub(self.noted) >= NOTE_EVERY || now < self.noted {
            self.time.note(&transaction, now)?;
            self.noted = now;
        }
        fail_point!("commit.before");
        transaction.commit()?;
        fail_point!("commit.after");
        Ok(())
    }

    /// Whether there is more to look after at once.
    fn look_after(&mut self, now: Instant) -> bool {
        if self.shared.failure().is_some() {
            return false;
        }
        if !self.place.is_there() {
            self.shared.note(&Failure::Gone);
            return false;
        }
        if self.shared.is_impeded.load(Ordering::Acquire) && now >= self.next_probe {
            self.next_probe = now + TICK;
            self.write(vec![Box::new(Probe)]);
        }
        *lock(&self.shared.writing_since) = Some(now);
        let followed = self.follow_clock();
        let noticed =
            followed.and_then(|()| notice_other_writers(&self.sql, &mut self.seen_version, &self.shared));
        let kept = noticed.and_then(|()| self.housekeeping.run(&mut self.sql, &self.shared, now));
        *lock(&self.shared.writing_since) = None;
        kept.unwrap_or_else(|error| {
            self.shared.note(&failure::of_write(&error, &self.shared.path));
            false
        })
    }

    /// What could not be moved now is moved at the next look.
    fn follow_clock(&mut self) -> rusqlite::Result<()> {
        let looked = LastLook::now(self.shared.now());
        if let Some(by) = looked.set_back_since(self.looked) {
            set_back::follow(&self.sql, &self.shared, by)?;
        }
        self.looked = looked;
        Ok(())
    }

    fn close(mut self, inbox: &Receiver<Message>, reply: tokio::sync::oneshot::Sender<()>) {
        // The last group's answers may have given deliveries back: those too.
        loop {
            let left = inbox.try_iter().filter_map(Message::into_job).collect::<Vec<_>>();
            if left.is_empty() {
                break;
            }
            self.write(left);
        }
        if self.shared.failure().is_none() && self.place.is_there() {
            // Nobody runs these routes any more.
            let _ = set_meta(&self.sql, WORKING, "[]");
            // How late it is, also after hours in which nothing was written.
            let _ = self.time.note(&self.sql, self.shared.now());
            let emptied = self.sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            if let Err(error) = emptied {
                self.shared.note(&failure::of_write(&error, &self.shared.path));
            }
        }
        drop(self);
        let _ = reply.send(());
    }
}

impl Message {
    fn into_job(self) -> Option<Box<dyn Job>> {
        match self {
            Self::Job(job) => Some(job),
            Self::Close(_) => None,
        }
    }
}

/// Sees whether somebody else has written since this was last asked: a redrive,
/// a release, another process. The tail reader looks for what is due, then.
fn notice_other_writers(sql: &Connection, seen: &mut i64, shared: &Shared) -> rusqlite::Result<()> {
    let version: i64 = sql.pragma_query_value(None, "data_version", |row| row.get(0))?;
    if version != *seen {
        shared.last.fetch_max(last_position(sql)?, Ordering::AcqRel);
        shared.quarantined.store(quarantined_bytes(sql)?, Ordering::Relaxed);
        *seen = version;
        shared.others_wrote.store(true, Ordering::Release);
        shared.wake_feeder();
    }
    Ok(())
}

/// Asks whether there is room again, so that readiness can come back while
/// nobody sends.
struct Probe;

impl Job for Probe {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        set_meta(store.sql, "probe", store.now)
    }

    fn finish(self: Box<Self>, _: Result<(), QueueError>) {}
}

enum Closing {
    Asked(tokio::sync::oneshot::Sender<()>),
    /// Every handle is gone: nobody waits for an answer.
    Abandoned,
}

/// Waits for one job, then takes what else is there.
fn next_group(inbox: &Receiver<Message>, wait: Duration) -> (Vec<Box<dyn Job>>, Option<Closing>) {
    let mut group = Vec::new();
    let mut next = match inbox.recv_timeout(wait) {
        Ok(message) => Some(message),
        Err(RecvTimeoutError::Timeout) => return (group, None),
        Err(RecvTimeoutError::Disconnected) => return (group, Some(Closing::Abandoned)),
    };
    while let Some(message) = next.take() {
        match message {
            Message::Job(job) => group.push(job),
            Message::Close(reply) => return (group, Some(Closing::Asked(reply))),
        }
        if group.len() < MAX_GROUP {
            next = inbox.try_recv().ok();
        }
    }
    (group, None)
}
