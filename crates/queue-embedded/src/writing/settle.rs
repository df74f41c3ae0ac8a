//! The end of an attempt: settled, given back, or a dead letter.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use queue::{Attempt, DeadReason, Disposition, Lease, MAX_DETAIL, Outcome, QueueError, Settlement};
use rusqlite::{OptionalExtension, params};
use sqlite_file::rows::{from_nanos, nanos, signed};
use sqlite_file::{Job, lock};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::reading::route::RouteBuffer;
use crate::shared::{LeaseKey, OpenLease, Shared};
use crate::writing::job::{QueueJobs, Store};
use crate::writing::turns;

/// Delay before a delivery that could not be given back is given back again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// First and longest wait before settling is tried again, while the disk is full or another
/// process holds the file. It is tried until the process stops: the attempt was made, and without
/// a settlement it would be made again.
const SETTLE_AGAIN: Duration = Duration::from_millis(250);
const SETTLE_AGAIN_AT_MOST: Duration = Duration::from_secs(5);

/// The right to settle one claimed row.
#[derive(Debug)]
pub(crate) struct EmbeddedLease {
    shared: Arc<Shared>,
    route: Arc<RouteBuffer>,
    key: LeaseKey,
    attempt: u32,
    settled: bool,
    /// True if the attempt ran exclusively at any time.
    was_alone: bool,
    /// True if it was recorded that the attempt waits for its turn, and not that it begins.
    is_waiting: bool,
    /// The end of the attempt, once it is known.
    ended: Option<Settlement>,
}

impl EmbeddedLease {
    pub(crate) fn new(
        shared: Arc<Shared>,
        route: Arc<RouteBuffer>,
        key: LeaseKey,
        attempt: u32,
    ) -> Self {
        Self {
            shared,
            route,
            key,
            attempt,
            settled: false,
            was_alone: false,
            is_waiting: false,
            ended: None,
        }
    }

    async fn change(&self, change: Change) -> Result<(), QueueError> {
        let (reply, answer) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let job = Settle {
            shared,
            key: self.key,
            attempt: self.attempt,
            change,
            held: true,
            due: None,
            reply: Some(reply),
        };
        self.shared.submit(job);
        answer.await.unwrap_or(Err(QueueError::Closed))
    }

    fn extend(&self) -> Result<(), QueueError> {
        let mut leases = lock(&self.shared.leases);
        let held = leases
            .get_mut(&self.key)
            .filter(|held| held.attempt == self.attempt)
            .ok_or(QueueError::LeaseLost)?;
        held.until = Instant::now() + held.route.lease;
        Ok(())
    }

    /// Settles once, and extends the lease meanwhile: a file that another process holds takes
    /// longer than many a lease.
    async fn settle_once(&self, settlement: &Settlement) -> Result<(), QueueError> {
        let mut settling = pin!(self.change(Change::Settle {
            settlement: settlement.clone(),
            was_alone: self.was_alone,
            is_waiting: self.is_waiting,
        }));
        loop {
            match timeout(self.route.lease / 4, settling.as_mut()).await {
                Ok(settled) => return settled,
                // If it is lost, the settlement says so.
                Err(_) => drop(self.extend()),
            }
        }
    }

    /// Settles, and waits for room for as long as that takes. The route asks for no more
    /// meanwhile: it could not settle that either.
    async fn settle_with_room(&self, settlement: &Settlement) -> Result<(), QueueError> {
        let mut again = SETTLE_AGAIN;
        let mut blocking = None;
        loop {
            match self.settle_once(settlement).await {
                Err(error @ (QueueError::Full | QueueError::Unavailable { .. }))
                    if !self.shared.is_closing() =>
                {
                    blocking.get_or_insert_with(|| self.route.block(&error));
                    sleep(again.min(self.route.lease / 4)).await;
                    again = (again * 2).min(SETTLE_AGAIN_AT_MOST);
                    self.extend()?;
                }
                settled => return settled,
            }
        }
    }
}

impl Lease for EmbeddedLease {
    fn settle(&mut self, settlement: Settlement) -> BoxFuture<'_, Result<(), QueueError>> {
        async move {
            self.ended = Some(settlement.clone());
            let result = self.settle_with_room(&settlement).await;
            self.settled = matches!(result, Ok(()) | Err(QueueError::LeaseLost));
            result
        }
        .boxed()
    }

    fn progress(&mut self) -> BoxFuture<'_, Result<(), QueueError>> {
        ready(self.extend()).boxed()
    }

    fn mark_waiting(&mut self) -> BoxFuture<'_, Result<(), QueueError>> {
        self.is_waiting = true;
        async move { self.change(Change::Waits).await }.boxed()
    }

    fn mark_exclusive(&mut self, is_alone: bool) -> BoxFuture<'_, Result<(), QueueError>> {
        self.is_waiting = false;
        self.was_alone |= is_alone;
        async move { self.change(Change::Alone(is_alone)).await }.boxed()
    }
}

impl Drop for EmbeddedLease {
    fn drop(&mut self) {
        if !self.settled {
            let given_back = match self.ended.take() {
                Some(settlement) => GivenBack::Ended(settlement),
                None => GivenBack::Unfinished,
            };
            give_back(&self.shared, self.key, self.attempt, given_back);
        }
    }
}

/// What became of the attempt of a delivery that is given back.
#[derive(Clone, Debug)]
pub(crate) enum GivenBack {
    /// The lease ran out, and its owner may still be at work.
    Expired,
    /// The owner has given it up. Nobody can settle it any more, so the number of its attempt is
    /// free for the next one.
    Unfinished,
    /// It ended like this, and could not be settled.
    Ended(Settlement),
}

/// Makes a delivery available again that was not settled.
pub(crate) fn give_back(shared: &Arc<Shared>, key: LeaseKey, attempt: u32, given_back: GivenBack) {
    let job = Settle {
        shared: Arc::clone(shared),
        key,
        attempt,
        change: Change::GiveBack(given_back),
        held: true,
        due: None,
        reply: None,
    };
    shared.submit(job);
}

enum Change {
    Settle {
        settlement: Settlement,
        was_alone: bool,
        is_waiting: bool,
    },
    GiveBack(GivenBack),
    Waits,
    /// It begins or goes on, exclusively or not.
    Alone(bool),
}

/// Changes one claimed row, if it is still claimed by this attempt.
struct Settle {
    shared: Arc<Shared>,
    key: LeaseKey,
    attempt: u32,
    change: Change,
    held: bool,
    /// The time at which the row is due again.
    due: Option<i64>,
    reply: Option<oneshot::Sender<Result<(), QueueError>>>,
}

impl Job<QueueJobs> for Settle {
    fn apply(&mut self, store: &mut Store<'_>) -> rusqlite::Result<()> {
        let Some(row) = claimed(store, self.key, self.attempt)? else {
            self.held = false;
            return Ok(());
        };
        match &self.change {
            Change::Waits => return turns::wait(store, self.key, self.attempt),
            Change::Alone(is_alone) => {
                turns::begin(store, self.key)?;
                return mark_alone(store, self.key, *is_alone);
            }
            Change::GiveBack(given_back) => {
                turns::begin(store, self.key)?;
                let (attempt, asked) = match given_back {
                    GivenBack::Ended(settlement) => (&settlement.attempt, settlement.asked),
                    GivenBack::Expired | GivenBack::Unfinished => (&row.returned(store.now), false),
                };
                record(store, self.key, self.attempt, attempt)?;
                self.due = Some(wait(store, self.key, Duration::ZERO, asked)?);
                if matches!(given_back, GivenBack::Unfinished) {
                    uncount(store, self.key)?;
                }
            }
            Change::Settle {
                settlement,
                was_alone,
                is_waiting,
            } => {
                if *is_waiting {
                    turns::begin(store, self.key)?;
                }
                record(store, self.key, self.attempt, &settlement.attempt)?;
                if *was_alone {
                    clear(store, self.key)?;
                }
                match settlement.disposition {
                    Disposition::Done => remove(store, self.key)?,
                    Disposition::Again(after) => {
                        self.due = Some(wait(store, self.key, after, settlement.asked)?)
                    }
                    Disposition::Dead(reason) => {
                        write_dead_letter(
                            store,
                            self.key,
                            self.attempt,
                            reason,
                            settlement.attempt.detail.as_deref(),
                        )?;
                        remove(store, self.key)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn wakes_reader(&self) -> bool {
        self.due.is_some()
    }

    fn finish(self: Box<Self>, committed: Result<(), QueueError>) {
        match (&self.change, &committed) {
            (Change::Alone(_) | Change::Waits, _) => {}
            (_, Ok(())) => self.release(),
            (Change::GiveBack(_), Err(_)) => self.try_again(),
            (Change::Settle { .. }, Err(_)) => {}
        }
        let answer = committed.and(if self.held {
            Ok(())
        } else {
            Err(QueueError::LeaseLost)
        });
        if let Some(reply) = self.reply {
            let _ = reply.send(answer);
        }
    }
}

impl Settle {
    fn release(&self) {
        let mut leases = lock(&self.shared.leases);
        if leases
            .get(&self.key)
            .is_some_and(|held| held.attempt == self.attempt)
        {
            leases.remove(&self.key);
        }
        drop(leases);
        if let (Some(route), Some(due)) = (self.route(), self.due) {
            route.waits_until(due);
        }
    }

    /// Nobody has the delivery, but the file still says that somebody has: an expired lease makes
    /// the tail reader give it back again.
    fn try_again(&self) {
        let Some(route) = self.route() else { return };
        let held = OpenLease {
            attempt: self.attempt,
            until: Instant::now() + TRY_AGAIN,
            route,
        };
        let mut leases = lock(&self.shared.leases);
        if leases
            .get(&self.key)
            .is_none_or(|newer| newer.attempt <= self.attempt)
        {
            leases.insert(self.key, held);
        }
    }

    fn route(&self) -> Option<Arc<RouteBuffer>> {
        lock(&self.shared.routes)
            .iter()
            .find(|route| route.id == self.key.route)
            .cloned()
    }
}

struct Row {
    since: i64,
}

impl Row {
    fn returned(&self, now: i64) -> Attempt {
        ended(self.since, now, Outcome::Returned)
    }
}

/// The record of an attempt that did not finish.
pub(crate) fn ended(since: i64, now: i64, outcome: Outcome) -> Attempt {
    Attempt {
        started_at: from_nanos(since).unwrap_or_default(),
        took: Duration::from_nanos(u64::try_from(now - since).unwrap_or(0)),
        outcome,
        status: None,
        detail: None,
    }
}

/// The row of a claimed delivery. `None` for a forgotten route: its rows are being removed, and
/// its name is gone, by which letters and attempts are stored.
fn claimed(store: &Store<'_>, key: LeaseKey, attempt: u32) -> rusqlite::Result<Option<Row>> {
    store
        .sql
        .prepare_cached(
            "SELECT at FROM deliveries
             WHERE route = ?1 AND position = ?2 AND redrive = ?3 AND in_flight = 1 AND attempt = ?4
                AND EXISTS (SELECT 1 FROM routes WHERE id = ?1)",
        )?
        .query_row(
            params![key.route, signed(key.position), key.redrive, attempt],
            |row| Ok(Row { since: row.get(0)? }),
        )
        .optional()
}

fn mark_alone(store: &Store<'_>, key: LeaseKey, is_alone: bool) -> rusqlite::Result<()> {
    store
        .sql
        .prepare_cached(
            "UPDATE deliveries SET alone = ?4 WHERE route = ?1 AND position = ?2 AND redrive = ?3",
        )?
        .execute(params![
            key.route,
            signed(key.position),
            key.redrive,
            is_alone
        ])
        .map(drop)
}

pub(crate) fn wait(
    store: &Store<'_>,
    key: LeaseKey,
    after: Duration,
    asked: bool,
) -> rusqlite::Result<i64> {
    let after = i64::try_from(after.as_nanos()).unwrap_or(i64::MAX);
    let due = store.now.saturating_add(after);
    store
        .sql
        .prepare_cached(
            "UPDATE deliveries SET in_flight = 0, alone = 0, at = ?4, asked = asked + ?5
             WHERE route = ?1 AND position = ?2 AND redrive = ?3",
        )?
        .execute(params![
            key.route,
            signed(key.position),
            key.redrive,
            due,
            asked
        ])?;
    Ok(due)
}

/// Sets the number of crashes to 0: a delivery that survived an exclusive run is no longer a
/// suspect.
fn clear(store: &Store<'_>, key: LeaseKey) -> rusqlite::Result<()> {
    store
        .sql
        .prepare_cached(
            "UPDATE deliveries SET deaths = 0 WHERE route = ?1 AND position = ?2 AND redrive = ?3",
        )?
        .execute(params![key.route, signed(key.position), key.redrive])
        .map(drop)
}

/// Gives the number of the attempt back.
pub(crate) fn uncount(store: &Store<'_>, key: LeaseKey) -> rusqlite::Result<()> {
    store
        .sql
        .prepare_cached(
            "UPDATE deliveries SET attempt = attempt - 1
             WHERE route = ?1 AND position = ?2 AND redrive = ?3 AND attempt > 0",
        )?
        .execute(params![key.route, signed(key.position), key.redrive])
        .map(drop)
}

pub(crate) fn remove(store: &Store<'_>, key: LeaseKey) -> rusqlite::Result<()> {
    store
        .sql
        .prepare_cached(
            "DELETE FROM deliveries WHERE route = ?1 AND position = ?2 AND redrive = ?3",
        )?
        .execute(params![key.route, signed(key.position), key.redrive])
        .map(drop)
}

/// Writes an attempt into the history.
pub(crate) fn record(
    store: &Store<'_>,
    key: LeaseKey,
    number: u32,
    attempt: &Attempt,
) -> rusqlite::Result<()> {
    store
        .sql
        .prepare_cached(
            "INSERT OR REPLACE INTO attempts
             SELECT ?2, name, ?3, ?4, ?5, ?6, ?7, ?8, ?9 FROM routes WHERE id = ?1",
        )?
        .execute(params![
            key.route,
            signed(key.position),
            key.redrive,
            number,
            nanos(attempt.started_at),
            i64::try_from(attempt.took.as_nanos()).unwrap_or(i64::MAX),
            attempt.outcome.as_str(),
            attempt.status,
            attempt.detail.as_deref().map(shortened),
        ])
        .map(drop)
}

/// Writes a dead letter. The caller removes its row in `deliveries` in the same transaction.
pub(crate) fn write_dead_letter(
    store: &Store<'_>,
    key: LeaseKey,
    attempts: u32,
    reason: DeadReason,
    detail: Option<&str>,
) -> rusqlite::Result<()> {
    store
        .sql
        .prepare_cached(
            "INSERT INTO dead_letters (route, position, redrive, reason, detail, attempts, at)
             SELECT name, ?2, ?3, ?4, ?5, ?6, ?7 FROM routes WHERE id = ?1",
        )?
        .execute(params![
            key.route,
            signed(key.position),
            key.redrive,
            reason.as_str(),
            detail.map(shortened),
            attempts,
            store.now,
        ])
        .map(drop)
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_DETAIL)]
}
