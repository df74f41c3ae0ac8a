use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use event_model::Event;
use futures::FutureExt;
use futures::future::BoxFuture;
use queue::{About, Attempt, DeadReason, Lease, Outcome, QueueError, Settlement, Verdict};
use tokio::time::{Instant, sleep};

use crate::attempts::{Line, Then};
use crate::consuming::alone::Place;
use crate::consuming::past::Past;
use crate::shared::{Origin, Shared};

/// How long to try to settle while the servers choose a leader. The lease is
/// kept meanwhile: given up, the event would be delivered twice.
const SETTLE_WITHIN: Duration = Duration::from_secs(45);

/// How long of that to insist on the history: it is in another stream, which may
/// be gone for longer.
const RECORD_WITHIN: Duration = Duration::from_secs(15);

/// How soon to try again.
const AGAIN: Duration = Duration::from_millis(250);

/// How long to try to give a delivery back; after that its lease does.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(5);

/// One message that was handed out.
pub(crate) struct NatsLease {
    pub(crate) shared: Arc<Shared>,
    pub(crate) route: Arc<str>,
    pub(crate) origin: Origin,
    pub(crate) reply: Subject,
    pub(crate) event: Arc<Event>,
    /// This attempt included.
    pub(crate) past: Past,
    pub(crate) lease: Duration,
    pub(crate) until: Instant,
    /// Of the stream: in another one, the same sequence is another message.
    pub(crate) life: u64,
    pub(crate) is_over: bool,
}

impl fmt::Debug for NatsLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsLease")
            .field("route", &self.route)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// When a lease that begins now ends: a little before the server thinks so.
pub(crate) fn end(lease: Duration) -> Instant {
    Instant::now() + lease.mul_f32(0.9)
}

impl NatsLease {
    /// The server takes late settlements, so it is we who must not make them.
    fn check(&mut self) -> Result<(), QueueError> {
        let is_past = self.life != self.shared.standing.life();
        if self.is_over || is_past || Instant::now() >= self.until {
            self.is_over = true;
            return Err(QueueError::LeaseLost);
        }
        Ok(())
    }

    async fn renew(&mut self) -> Result<(), QueueError> {
        self.check()?;
        let sent = self.shared.link.say(self.reply.clone(), "+WPI").await;
        sent.map_err(|error| QueueError::unavailable("saying that an attempt is alive", error))?;
        self.until = end(self.lease);
        Ok(())
    }

    async fn settle_once(&self, settlement: &Settlement, must_record: bool) -> Result<(), QueueError> {
        let (event, past, route) = (&*self.event, &self.past, &*self.route);
        let then = match settlement.verdict {
            Verdict::Done => Then::Done,
            Verdict::Again(wait) => {
                let due = self.shared.after(wait);
                self.shared.schedule(event, past, route, due, self.origin).await?;
                Then::Waiting { due }
            }
            Verdict::Dead(reason) => {
                let detail = settlement.attempt.detail.as_deref();
                let letter = self.shared.bury(event, past, route, reason, detail).await?;
                Then::Dead { letter, reason }
            }
        };
        self.record(&settlement.attempt, then, must_record).await?;
        if settlement.verdict == Verdict::Done {
            // Lost, it means once more: no reason to wait for every answer.
            let said = self.shared.link.say(self.reply.clone(), "+ACK").await;
            return said.map_err(|error| QueueError::unavailable("acknowledging a delivery", error));
        }
        self.shared.acknowledge(&self.reply).await
    }

    /// History that can't be written must not stop a delivery for long.
    async fn record(&self, attempt: &Attempt, then: Then, must: bool) -> Result<(), QueueError> {
        let written = self.shared.attempts.record(line(&self.event, &self.route, &self.past, attempt, then));
        match written.await {
            Err(error) if !must || matches!(error, QueueError::Full) => {
                tracing::error!(route = &*self.route, %error, "an attempt is missing in the history");
                Ok(())
            }
            written => written,
        }
    }
}

pub(crate) fn line(event: &Event, route: &str, past: &Past, attempt: &Attempt, then: Then) -> Line {
    let About { name, account, entity, root_ref } = About::of(event);
    Line {
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
            self.check()?;
            let began = Instant::now();
            loop {
                let must_record = began.elapsed() < RECORD_WITHIN;
                match self.settle_once(&settlement, must_record).await {
                    Err(QueueError::Full | QueueError::Unavailable { .. })
                        if began.elapsed() < SETTLE_WITHIN =>
                    {
                        sleep(AGAIN).await;
                        // In vain while there is no connection; then the lease ends.
                        match self.renew().await {
                            Err(QueueError::LeaseLost) => return Err(QueueError::LeaseLost),
                            _ => self.check()?,
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

    fn alone(&mut self, is_alone: bool) -> BoxFuture<'_, Result<(), QueueError>> {
        async move {
            self.check()?;
            let place = Place { route: &self.route, origin: self.origin, event: self.event.id() };
            place.mark(&self.shared, self.past.attempts, is_alone).await
        }
        .boxed()
    }
}

/// Gives the delivery back at once: by its lease alone it would come later, and
/// look as if the process had died.
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
            was_handed_out: true,
        };
        self.shared.tasks.spawn(back.run());
    }
}

/// A delivery on its way back.
pub(crate) struct GivenBack {
    pub(crate) shared: Arc<Shared>,
    pub(crate) route: Arc<str>,
    pub(crate) origin: Origin,
    pub(crate) reply: Subject,
    pub(crate) event: Arc<Event>,
    pub(crate) past: Past,
    /// Whether somebody had it in hand, and `past` counts that as an attempt.
    pub(crate) was_handed_out: bool,
}

impl GivenBack {
    pub(crate) async fn run(self) {
        if !matches!(tokio::time::timeout(GIVE_BACK_WITHIN, self.give_back()).await, Ok(Ok(()))) {
            tracing::warn!(route = &*self.route, "a delivery was not given back: it comes by its lease");
        }
    }

    async fn give_back(&self) -> Result<(), QueueError> {
        let why = format!("back/{}", self.origin);
        let next = if self.was_handed_out { self.past.without_last_attempt() } else { self.past };
        self.shared.requeue(&self.event, &next, &self.route, &why).await?;
        if self.was_handed_out {
            let attempt = ended(&self.shared, Outcome::Returned);
            let line = line(&self.event, &self.route, &self.past, &attempt, Then::Back);
            let _ = self.shared.attempts.record(line).await;
        }
        self.shared.acknowledge(&self.reply).await
    }
}

/// What is known of an attempt that nobody finished.
pub(crate) fn ended(shared: &Shared, outcome: Outcome) -> Attempt {
    Attempt { started_at: shared.clock.now(), took: Duration::ZERO, outcome, status: None, detail: None }
}

/// A delivery that was alone when its process died.
pub(crate) async fn bury_crashed(
    shared: &Shared,
    event: &Event,
    past: &Past,
    route: &str,
    reply: &Subject,
) -> Result<(), QueueError> {
    const WHY: &str = "the process died while this event was attempted alone";
    let letter = shared.bury(event, past, route, DeadReason::Crash, Some(WHY)).await?;
    let attempt = ended(shared, Outcome::Died);
    let then = Then::Dead { letter, reason: DeadReason::Crash };
    if let Err(error) = shared.attempts.record(line(event, route, past, &attempt, then)).await {
        tracing::error!(route, %error, "an attempt is missing in the history");
    }
    shared.acknowledge(reply).await
}
