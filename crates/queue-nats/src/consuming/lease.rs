//! The lease of a delivery: settling it once, extending it, and giving it back.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::Subject;
use event_model::Event;
use fail::fail_point;
use futures::FutureExt;
use futures::future::BoxFuture;
use queue::{
    Attempt, BoxError, DeadReason, Disposition, EventSummary, Lease, Outcome, QueueError,
    Settlement,
};
use tokio::sync::Notify;
use tokio::time::{Instant, interval_at, sleep};

use crate::attempts::{AttemptRecord, NextState};
use crate::consuming::deadline::Deadline;
use crate::consuming::delivery_state::DeliveryState;
use crate::consuming::exclusive_marker::ExclusiveMarker;
use crate::consuming::inflight::{AttemptState, InFlightMarker};
use crate::shared::{Origin, Shared};

/// First wait before settling is tried again, while the servers choose a leader or a stream is
/// full. It is tried for as long as the lease can be extended: the attempt was made, and without
/// a settlement it would be made again.
const AGAIN: Duration = Duration::from_millis(250);

/// Longest wait between tries, if the lease is long enough for it.
const AGAIN_AT_MOST: Duration = Duration::from_secs(5);

/// Longest time for which giving back is tried; after that the end of the lease does it.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);

/// Acknowledgement that gives a message back to the server, for the next request.
pub(crate) const GIVE_BACK: &str = "-NAK";

/// Interval at which the marker of an attempt is renewed, since old markers make room for newer
/// ones.
const MARK_AGAIN: Duration = Duration::from_secs(15);

/// Counts the settlements of a route that wait for room in a store. While there are any, the
/// route fetches nothing: it could not settle that either.
#[derive(Debug, Default)]
pub(crate) struct SettlementBlocks {
    count: AtomicUsize,
    changed: Notify,
}

impl SettlementBlocks {
    pub(crate) fn is_blocked(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Waits until the count may have changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn begin(self: &Arc<Self>, route: &str) -> BlockGuard {
        if self.count.fetch_add(1, Ordering::AcqRel) == 0 {
            tracing::error!(
                route,
                "there is no room to settle a delivery: the route asks for no more until there is"
            );
        }
        BlockGuard(Arc::clone(self))
    }
}

/// A settlement that waits for room, until it is dropped.
struct BlockGuard(Arc<SettlementBlocks>);

impl Drop for BlockGuard {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}

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
    /// Whether the attempt has ended, settled or not.
    pub(crate) has_ended: bool,
    /// Time at which a marker last said that the attempt began, or goes on.
    pub(crate) marked: Instant,
    /// Settlements of the route that wait for room.
    pub(crate) blocked: Arc<SettlementBlocks>,
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
        if self.marked.elapsed() >= MARK_AGAIN && !self.has_ended {
            self.marked = Instant::now();
            let mark = InFlightMarker::new(
                &self.shared,
                self.origin,
                &self.event,
                &self.past,
                AttemptState::Began,
            );
            self.shared
                .inflight
                .write(&self.shared, &self.route, vec![(self.origin, mark)])
                .await;
        }
        Ok(())
    }

    /// Settles once, and extends the lease meanwhile: a stream that does not answer takes longer
    /// than many a lease.
    async fn settle_and_keep(&mut self, settlement: &Settlement) -> Result<(), QueueError> {
        let link = self.shared.link.clone();
        let reply = self.reply.clone();
        let lease = self.lease;
        let mut until = self.until;
        let settled = {
            let mut settling = pin!(self.settle_once(settlement));
            let mut ticks = interval_at(Instant::now() + lease / 4, lease / 4);
            loop {
                tokio::select! {
                    biased;
                    settled = &mut settling => break settled,
                    _ = ticks.tick() => {
                        if !until.is_over() && link.say(reply.clone(), "+WPI").await.is_ok() {
                            until = Deadline::of(lease);
                        }
                    }
                }
            }
        };
        self.until = until;
        settled
    }

    async fn settle_once(&self, settlement: &Settlement) -> Result<(), QueueError> {
        let event = &*self.event;
        let route = &*self.route;
        let then = match settlement.disposition {
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
        };
        self.record(&settlement.attempt, then).await;
        fail_point!("record.after");
        if settlement.disposition == Disposition::Done {
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
            .record(line(&self.event, &self.route, &self.past, attempt, then))
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
            self.has_ended = true;
            let mut again = AGAIN;
            let mut blocking = None;
            loop {
                self.check()?;
                match self.settle_and_keep(&settlement).await {
                    Err(error @ (QueueError::Full | QueueError::Unavailable { .. }))
                        if !self.shared.closing.is_cancelled() =>
                    {
                        if matches!(error, QueueError::Full) && blocking.is_none() {
                            blocking = Some(self.blocked.begin(&self.route));
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

    fn mark_exclusive(&mut self, is_alone: bool) -> BoxFuture<'_, Result<(), QueueError>> {
        async move {
            self.check()?;
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
        let back = GivenBack {
            shared: Arc::clone(&self.shared),
            route: Arc::clone(&self.route),
            origin: self.origin,
            reply: self.reply.clone(),
            event: Arc::clone(&self.event),
            past: self.past,
            attempt: Some(if self.has_ended {
                AttemptState::Ended
            } else {
                AttemptState::Returned
            }),
            was_alone: self.was_alone,
        };
        self.shared.tasks.spawn(back.run());
    }
}

/// A delivery that is given back by a process or a route that stops.
pub(crate) struct GivenBack {
    pub(crate) shared: Arc<Shared>,
    pub(crate) route: Arc<str>,
    pub(crate) origin: Origin,
    pub(crate) reply: Subject,
    pub(crate) event: Arc<Event>,
    pub(crate) past: DeliveryState,
    /// State of the attempt that `past` counts; `None` if no caller had it.
    pub(crate) attempt: Option<AttemptState>,
    pub(crate) was_alone: bool,
}

impl GivenBack {
    pub(crate) async fn run(self) {
        if !matches!(
            tokio::time::timeout(GIVE_BACK_WITHIN, self.give_back()).await,
            Ok(Ok(()))
        ) {
            tracing::warn!(
                route = &*self.route,
                "a delivery was not given back: it comes by its lease"
            );
        }
    }

    async fn give_back(&self) -> Result<(), BoxError> {
        match self.shared.monitor.has_room_to_wait() {
            true => self.requeue().await?,
            false => self.reject().await?,
        }
        if self.attempt == Some(AttemptState::Returned) {
            let attempt = ended(&self.shared, Outcome::Returned);
            let line = line(
                &self.event,
                &self.route,
                &self.past,
                &attempt,
                NextState::Back,
            );
            self.shared.attempts.record(line).await;
        }
        Ok(())
    }

    /// Puts it into the stream of retries, due at once: nothing of it is in flight then.
    async fn requeue(&self) -> Result<(), QueueError> {
        let why = format!("back/{}", self.origin);
        let returned = self.attempt == Some(AttemptState::Returned);
        let next = if returned {
            self.past.without_last_attempt()
        } else {
            self.past
        };
        fail_point!("give-back.before");
        self.shared
            .requeue(&self.event, &next, &self.route, &why)
            .await?;
        fail_point!("give-back.after");
        self.shared.acknowledge(&self.reply).await?;
        fail_point!("give-back.acknowledged");
        Ok(())
    }

    /// Lets the server send it to another process, if there is no room for it in the retries.
    /// First writes what became of the attempt, so that nobody takes it for a crash.
    async fn reject(&self) -> Result<(), BoxError> {
        if self.was_alone {
            let place = ExclusiveMarker {
                route: &self.route,
                origin: self.origin,
                event: self.event.id(),
            };
            place.mark(&self.shared, self.past.attempts, false).await?;
        }
        if let Some(state) = self.attempt {
            let mark =
                InFlightMarker::new(&self.shared, self.origin, &self.event, &self.past, state);
            self.shared
                .inflight
                .write(&self.shared, &self.route, vec![(self.origin, mark)])
                .await;
        }
        self.shared.link.say(self.reply.clone(), GIVE_BACK).await
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

/// Dead-letters a delivery that ran exclusively when its process crashed.
pub(crate) async fn dead_letter_crashed(
    shared: &Shared,
    event: &Event,
    past: &DeliveryState,
    route: &str,
    reply: &Subject,
) -> Result<(), QueueError> {
    const WHY: &str = "the process died while this event was attempted alone";
    let letter = shared
        .dead_letter(event, past, route, DeadReason::Crash, Some(WHY))
        .await?;
    let attempt = ended(shared, Outcome::Died);
    let then = NextState::Dead {
        letter,
        reason: DeadReason::Crash,
    };
    shared
        .attempts
        .record(line(event, route, past, &attempt, then))
        .await;
    shared.acknowledge(reply).await
}
