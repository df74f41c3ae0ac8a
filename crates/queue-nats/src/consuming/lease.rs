//! The lease of a delivery: settling it once, extending it, and giving it back.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::Subject;
use event_model::Event;
use fail::fail_point;
use futures::FutureExt;
use futures::future::BoxFuture;
use queue::{
    Attempt, DeadReason, Disposition, EventSummary, Lease, Outcome, QueueError, Settlement,
};
use tokio::time::{Instant, interval_at, sleep};

use crate::attempts::{AttemptRecord, NextState};
use crate::consuming::byte_budget::HeldBytes;
use crate::consuming::deadline::Deadline;
use crate::consuming::delivery_state::DeliveryState;
use crate::consuming::exclusive_marker::ExclusiveMarker;
use crate::consuming::given_back::GivenBack;
use crate::consuming::inflight::{AttemptState, InFlightMarker};
use crate::consuming::settlement_blocks::SettlementBlocks;
use crate::shared::{Origin, Shared};

/// First wait before settling is tried again, while the servers choose a leader or a stream is
/// full. It is tried for as long as the lease can be extended: the attempt was made, and without
/// a settlement it would be made again.
const AGAIN: Duration = Duration::from_millis(250);

/// Longest wait between tries, if the lease is long enough for it.
const AGAIN_AT_MOST: Duration = Duration::from_secs(5);

/// Longest time for which an event waits for room among the retries, and keeps its permit: with
/// all permits taken the route would take no retries either, and only those make room.
const BLOCKED_FOR: Duration = Duration::from_secs(20);

/// Time after which a settlement counts as one that waits.
const WAITS_AFTER: Duration = Duration::from_millis(500);

/// Interval at which the marker of an attempt is renewed, since old markers make room for newer
/// ones.
const MARK_AGAIN: Duration = Duration::from_secs(15);

/// The lease of a message that was handed out.
pub(crate) struct NatsLease {
    pub(crate) shared: Arc<Shared>,
    pub(crate) route: Arc<str>,
    pub(crate) origin: Origin,
    pub(crate) reply: Subject,
    pub(crate) event: Arc<Event>,
    /// State of the delivery, with this attempt included.
    pub(crate) past: DeliveryState,
    pub(crate) lease: Duration,
    pub(crate) until: Deadline,
    /// Epoch number of the stream: in another epoch, the same sequence is another message.
    pub(crate) life: u64,
    pub(crate) is_over: bool,
    /// Whether it ran exclusively at any time.
    pub(crate) was_alone: bool,
    /// Whether the attempt waits for its turn, and has not begun.
    pub(crate) is_waiting: bool,
    /// Whether the attempt has ended, settled or not, and then whether it called the destination.
    pub(crate) ended: Option<EndedAttempt>,
    /// What its settlement has written, which must not be written twice: servers know the id of
    /// that only for a while. From then on it is only acknowledged.
    pub(crate) written: OnceLock<NextState>,
    /// Time at which a marker last said that the attempt began, or goes on.
    pub(crate) marked: Instant,
    /// Settlements of the route that wait for room.
    pub(crate) blocked: Arc<SettlementBlocks>,
    pub(crate) _held: HeldBytes,
}

/// An attempt that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndedAttempt {
    /// Whether it called the destination.
    has_asked: bool,
    /// Whether the markers say that it has ended, because its settlement waits.
    is_marked: bool,
}

impl fmt::Debug for NatsLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsLease")
            .field("route", &self.route)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl NatsLease {
    /// Fails if the lease is over: the server accepts late settlements, so they must be prevented
    /// here.
    fn check(&mut self) -> Result<(), QueueError> {
        let is_past = self.life != self.shared.monitor.epoch_number();
        if self.is_over || is_past || self.until.is_over() {
            self.is_over = true;
            return Err(QueueError::LeaseLost);
        }
        Ok(())
    }

    async fn renew(&mut self) -> Result<(), QueueError> {
        self.check()?;
        let sent = self.shared.link.say(self.reply.clone(), "+WPI").await;
        sent.map_err(|error| QueueError::unavailable("saying that an attempt is alive", error))?;
        self.until = Deadline::of(self.lease);
        if self.marked.elapsed() >= MARK_AGAIN {
            self.marked = Instant::now();
            let state = match self.ended {
                // As if it had been given back: it has not begun.
                None if self.is_waiting => AttemptState::Returned,
                None => AttemptState::Began,
                Some(_) => AttemptState::Ended,
            };
            self.write_marker(state).await;
        }
        Ok(())
    }

    async fn write_marker(&self, state: AttemptState) {
        let mark = InFlightMarker::new(&self.shared, self.origin, &self.event, &self.past, state);
        self.shared
            .inflight
            .write(&self.shared, &self.route, vec![(self.origin, mark)])
            .await;
    }

    /// Writes that the attempt has ended: a process that is killed while its settlement waits was
    /// not killed by it.
    async fn mark_ended(&self) {
        self.write_marker(AttemptState::Ended).await;
        if self.was_alone
            && let Err(error) = self.write_exclusive_marker(false).await
        {
            tracing::warn!(route = &*self.route, %error, "it can't be marked that an exclusive attempt has ended");
        }
    }

    /// Settles once, and extends the lease meanwhile: a stream that does not answer takes longer
    /// than many a lease. If it takes long, markers say that the attempt has ended.
    async fn settle_and_keep(&mut self, settlement: &Settlement) -> Result<(), QueueError> {
        let link = self.shared.link.clone();
        let reply = self.reply.clone();
        let lease = self.lease;
        let mut until = self.until;
        let mut is_marked = self.ended.is_some_and(|ended| ended.is_marked);
        let settled = {
            let mut settling = pin!(self.settle_once(settlement));
            let mut marking = pin!(async {
                sleep(WAITS_AFTER.min(lease / 4)).await;
                self.mark_ended().await;
            });
            let mut ticks = interval_at(Instant::now() + lease / 4, lease / 4);
            loop {
                tokio::select! {
                    biased;
                    settled = &mut settling => break settled,
                    () = &mut marking, if !is_marked => is_marked = true,
                    _ = ticks.tick() => {
                        if !until.is_over() && link.say(reply.clone(), "+WPI").await.is_ok() {
                            until = Deadline::of(lease);
                        }
                    }
                }
            }
        };
        self.until = until;
        if settled.is_err() && !is_marked {
            self.mark_ended().await;
            is_marked = true;
        }
        self.ended = self.ended.map(|ended| EndedAttempt { is_marked, ..ended });
        settled
    }

    async fn settle_once(&self, settlement: &Settlement) -> Result<(), QueueError> {
        if self.written.get().is_none() {
            let then = self.write(settlement).await?;
            let then = self.written.get_or_init(|| then).clone();
            self.record(&settlement.attempt, then).await;
            fail_point!("record.after");
        }
        if self.written.get() == Some(&NextState::Done) {
            // If it is lost, the event is delivered once more: no reason to wait for every
            // answer.
            let said = self.shared.link.say(self.reply.clone(), "+ACK").await;
            return said
                .map_err(|error| QueueError::unavailable("acknowledging a delivery", error));
        }
        self.shared.acknowledge(&self.reply).await?;
        fail_point!("acknowledge.after");
        Ok(())
    }

    /// Writes what the delivery becomes: its schedule or its dead letter.
    async fn write(&self, settlement: &Settlement) -> Result<NextState, QueueError> {
        let event = &*self.event;
        let route = &*self.route;
        Ok(match settlement.disposition {
            Disposition::Done => NextState::Done,
            Disposition::Again(wait) => {
                let due = self.shared.after(wait);
                fail_point!("schedule.before");
                self.shared
                    .schedule(event, &self.goes_on(settlement), route, due, self.origin)
                    .await?;
                fail_point!("schedule.after");
                NextState::Waiting { due }
            }
            Disposition::Dead(reason) => {
                let detail = settlement.attempt.detail.as_deref();
                fail_point!("letter.before");
                let letter = self
                    .shared
                    .dead_letter(event, &self.past, route, reason, detail)
                    .await?;
                fail_point!("letter.after");
                NextState::Dead { letter, reason }
            }
        })
    }

    /// Lets the server keep an event that is to be attempted again, until then: there is no room
    /// among the retries. The server keeps no more of them than the route may have in flight. The
    /// marker of the attempt says how often it was tried.
    async fn leave_to_server(
        &mut self,
        settlement: &Settlement,
        wait: Duration,
    ) -> Result<(), QueueError> {
        self.mark_ended().await;
        let due = self.shared.after(wait);
        self.record(&settlement.attempt, NextState::Waiting { due })
            .await;
        let later = format!("-NAK {{\"delay\":{}}}", wait.as_nanos());
        let said = self.shared.link.say(self.reply.clone(), later).await;
        said.map_err(|error| QueueError::unavailable("leaving a delivery to the server", error))
    }

    async fn write_exclusive_marker(&self, is_alone: bool) -> Result<(), QueueError> {
        let place = ExclusiveMarker {
            route: &self.route,
            origin: self.origin,
            event: self.event.id(),
        };
        place.mark(&self.shared, self.past.attempts, is_alone).await
    }

    /// Returns the state before the next attempt. A delivery that survived an exclusive attempt
    /// is no longer a suspect.
    fn goes_on(&self, settlement: &Settlement) -> DeliveryState {
        let deaths = if self.was_alone { 0 } else { self.past.deaths };
        let asked = self.past.asked + u32::from(settlement.asked);
        DeliveryState {
            deaths,
            asked,
            ..self.past
        }
    }

    /// Records the attempt. A history that can't be written does not stop a delivery for long.
    async fn record(&self, attempt: &Attempt, then: NextState) {
        self.shared
            .attempts
            .record(
                line(&self.event, &self.route, &self.past, attempt, then),
                self.past.position,
            )
            .await;
    }
}

pub(crate) fn line(
    event: &Event,
    route: &str,
    past: &DeliveryState,
    attempt: &Attempt,
    then: NextState,
) -> AttemptRecord {
    let EventSummary {
        name,
        account,
        entity,
        root_ref,
    } = EventSummary::of(event);
    AttemptRecord {
        name,
        account,
        entity,
        root_ref,
        event: event.id().to_string(),
        route: route.to_owned(),
        redrive: past.redrive,
        attempt: past.attempts,
        started_at: attempt.started_at,
        took_ns: u64::try_from(attempt.took.as_nanos()).unwrap_or(u64::MAX),
        outcome: attempt.outcome,
        status: attempt.status,
        detail: attempt.detail.clone(),
        then,
    }
}

impl Lease for NatsLease {
    fn settle(&mut self, settlement: Settlement) -> BoxFuture<'_, Result<(), QueueError>> {
        async move {
            self.ended.get_or_insert(EndedAttempt {
                has_asked: settlement.asked,
                is_marked: false,
            });
            let mut again = AGAIN;
            let mut blocking = None;
            let mut blocked_until = None;
            loop {
                self.check()?;
                match self.settle_and_keep(&settlement).await {
                    Err(error @ (QueueError::Full | QueueError::Unavailable { .. }))
                        if !self.shared.closing.is_cancelled() =>
                    {
                        if matches!(error, QueueError::Full) {
                            blocking.get_or_insert_with(|| self.blocked.begin(&self.route));
                            let until =
                                *blocked_until.get_or_insert_with(|| Instant::now() + BLOCKED_FOR);
                            if let Disposition::Again(wait) = settlement.disposition
                                && until <= Instant::now()
                            {
                                self.leave_to_server(&settlement, wait).await?;
                                self.is_over = true;
                                return Ok(());
                            }
                        }
                        sleep(again).await;
                        again = (again * 2).min(AGAIN_AT_MOST).min(self.lease / 3);
                        // Without a connection this fails until the lease ends.
                        if let Err(QueueError::LeaseLost) = self.renew().await {
                            return Err(QueueError::LeaseLost);
                        }
                    }
                    settled => {
                        self.is_over |= settled.is_ok();
                        return settled;
                    }
                }
            }
        }
        .boxed()
    }

    fn progress(&mut self) -> BoxFuture<'_, Result<(), QueueError>> {
        self.renew().boxed()
    }

    fn mark_waiting(&mut self) -> BoxFuture<'_, Result<(), QueueError>> {
        async move {
            self.check()?;
            self.is_waiting = true;
            self.write_marker(AttemptState::Returned).await;
            Ok(())
        }
        .boxed()
    }

    fn mark_exclusive(&mut self, is_alone: bool) -> BoxFuture<'_, Result<(), QueueError>> {
        async move {
            self.check()?;
            if std::mem::take(&mut self.is_waiting) {
                // Before the exclusive marker: whoever finds that one takes it for the cause.
                self.write_marker(AttemptState::Began).await;
            }
            self.was_alone |= is_alone;
            self.write_exclusive_marker(is_alone).await
        }
        .boxed()
    }
}

/// Gives the delivery back at once; the end of the lease would do so later.
impl Drop for NatsLease {
    fn drop(&mut self) {
        if self.check().is_err() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if self.written.get().is_some() {
            // Given back, it would be there twice.
            let shared = Arc::clone(&self.shared);
            let reply = self.reply.clone();
            self.shared
                .tasks
                .spawn(async move { shared.dismiss(&reply).await });
            return;
        }
        let asked = self.ended.is_some_and(|ended| ended.has_asked);
        let back = GivenBack {
            shared: Arc::clone(&self.shared),
            route: Arc::clone(&self.route),
            origin: self.origin,
            reply: self.reply.clone(),
            event: Arc::clone(&self.event),
            past: DeliveryState {
                asked: self.past.asked + u32::from(asked),
                ..self.past
            },
            lease: self.lease,
            attempt: Some(match self.ended {
                Some(_) => AttemptState::Ended,
                None => AttemptState::Returned,
            }),
            was_alone: self.was_alone,
        };
        self.shared.tasks.spawn(back.run());
    }
}

/// Returns the record of an attempt that nobody finished.
pub(crate) fn ended(shared: &Shared, outcome: Outcome) -> Attempt {
    Attempt {
        started_at: shared.clock.now(),
        took: Duration::ZERO,
        outcome,
        status: None,
        detail: None,
    }
}

/// Dead-letters a delivery that ran exclusively when its process crashed. `written` says whether
/// an earlier call has written the letter, which is then only to be acknowledged.
pub(crate) async fn dead_letter_crashed(
    shared: &Shared,
    event: &Event,
    past: &DeliveryState,
    route: &str,
    reply: &Subject,
    written: &OnceLock<u64>,
) -> Result<(), QueueError> {
    const WHY: &str = "the process died while this event was attempted alone";
    if written.get().is_some() {
        return shared.acknowledge(reply).await;
    }
    let letter = shared
        .dead_letter(event, past, route, DeadReason::Crash, Some(WHY))
        .await?;
    let attempt = ended(shared, Outcome::Died);
    let then = NextState::Dead {
        letter: *written.get_or_init(|| letter),
        reason: DeadReason::Crash,
    };
    shared
        .attempts
        .record(line(event, route, past, &attempt, then), past.position)
        .await;
    shared.acknowledge(reply).await
}
