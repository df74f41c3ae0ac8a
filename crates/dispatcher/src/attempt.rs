//! One attempt: run the dispatcher within its bounds, decide, settle.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dispatch::{AnyDispatcher, CancellationToken, Context};
use enrichment::Enrichment;
use event_model::{Clock, Origin, Timestamp};
use queue::{Attempt, DeadReason, Delivery, Outcome, QueueError, Settlement, Ticket, Unsettled, Verdict};
use settings::RouteSettings;
use telemetry::{Chain, Span, metrics};
use tokio::time::{sleep, timeout_at};

use crate::breaker::{Begun, Breaker};
use crate::explain::{Reader, explain, record};
use crate::heartbeat::Heartbeat;
use crate::isolation::{Isolation, NotProvenAlone, RunPermit};
use crate::policy::{Circumstances, Ended, Skip, verdict};
use crate::then::Then;
use crate::twins::Twins;
use crate::watch::{self, About, Watch};

/// How often, and how soon, to try again to settle. After that the delivery
/// goes back to the queue: the event may be delivered twice, and is never lost.
const SETTLE_TRIES: u32 = 5;
const SETTLE_AGAIN: Duration = Duration::from_millis(300);

/// How long settling may take once the process has to stop. A queue that is well settles in
/// less; giving back what it did not settle takes time, too.
const SETTLE_AT_HARD_STOP: Duration = Duration::from_millis(200);

/// What every attempt of a route needs.
#[derive(Debug)]
pub(crate) struct Attempting {
    pub(crate) settings: RouteSettings,
    pub(crate) dispatcher: AnyDispatcher,
    pub(crate) enrichment: Option<Enrichment>,
    pub(crate) then: Then,
    pub(crate) twins: Option<Twins>,
    pub(crate) isolation: Isolation,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long a delivery may be held without a sign of life.
    pub(crate) lease: Duration,
    pub(crate) hard_stop: CancellationToken,
}

impl Attempting {
    pub(crate) async fn run(&self, mut delivery: Delivery, begun: Begun) {
        let watch = Watch::begin(&delivery, self.clock.now());
        match self.settings.terms.misses(&delivery.event) {
            Err(why) => return self.bury(delivery, watch, DeadReason::Undecided, why.to_string()).await,
            Ok(misses) if delivery.asks_match && !misses.is_empty() => {
                return self.skip(delivery, watch, Skip::NotMatched).await;
            }
            Ok(_) => {}
        }
        let mut heartbeat = Heartbeat::new(self.lease);
        let permitted = self.hard_stop.run_until_cancelled(self.permit(&mut delivery, &mut heartbeat)).await;
        match permitted.flatten() {
            Some(Ok(permit)) => self.attempt(delivery, watch, begun, heartbeat, permit).await,
            Some(Err(NotProvenAlone)) => {
                let crashes = delivery.deaths;
                let why = format!(
                    "the process died {crashes} times while this event was attempted; not proven alone"
                );
                self.bury(delivery, watch, DeadReason::Crash, why).await;
            }
            // Lost, or the process stops: dropping the delivery gives it back.
            None => {}
        }
    }

    /// Waits for the right to run it. `None` if its lease was lost, or that it runs alone
    /// could not be recorded.
    async fn permit(
        &self,
        delivery: &mut Delivery,
        heartbeat: &mut Heartbeat,
    ) -> Option<Result<RunPermit, NotProvenAlone>> {
        let Delivery { event, ticket, deaths, .. } = delivery;
        let permitted = heartbeat.during(ticket, self.isolation.enter(*deaths)).await?;
        let Ok(permit) = permitted else { return Some(permitted) };
        if let Some(until) = permit.exclusive_until() {
            tracing::warn!(event.id = %event.id(), route = self.settings.name, deaths, "suspected of killing the process: attempted alone");
            let recorded = heartbeat.record(ticket, async |ticket| ticket.alone().await);
            timeout_at(until, recorded).await.ok()?.ok()?;
        }
        Some(Ok(permit))
    }

    async fn attempt(
        &self,
        mut delivery: Delivery,
        watch: Watch,
        begun: Begun,
        mut heartbeat: Heartbeat,
        mut permit: RunPermit,
    ) {
        let (started_at, began) = (self.clock.now(), Instant::now());
        let span = watch.attempt();
        let cx = self.context(&delivery, &span, started_at);
        let ended = self.result(&mut delivery, cx, begun, &mut heartbeat, &mut permit).await;
        // Lost or interrupted: dropping the delivery gives it back.
        let Some((ended, at)) = ended else { return };
        let attempt = record(&ended, started_at, began.elapsed());
        if permit.exclusive_until().is_some() {
            // Settling may take longer than others are kept out. The attempt is over: whatever
            // kills the process from now on, it was not this.
            let released = release(&mut delivery.ticket, &mut heartbeat);
            self.hard_stop.run_until_cancelled(released).await;
        }
        self.settle(delivery, watch, span, (&ended, at), attempt).await;
        // A suspect is cleared by its settlement, not before.
        drop(permit);
    }

    /// How the attempt ended, and what its verdict rests on. `None` if its lease was lost, or
    /// if the process had to stop: then nobody knows whether the stop made it fail.
    async fn result(
        &self,
        delivery: &mut Delivery,
        cx: Context,
        begun: Begun,
        heartbeat: &mut Heartbeat,
        permit: &mut RunPermit,
    ) -> Option<(Ended, Circumstances)> {
        let Delivery { event, ticket, redrive, first_attempt_at, attempt, asked, .. } = delivery;
        let is_sent_again = *redrive > 0 && event.origin() == Origin::Webhook;
        let twins = self.twins.as_ref().filter(|_| !is_sent_again);
        let now = || self.circumstances(*first_attempt_at, *attempt, *asked);
        let attempting = pin!(self.whole(event, cx, twins, begun, now));
        let running = run(attempting, ticket, heartbeat, permit);
        let ended = tokio::select! {
            biased;
            ended = running => ended,
            () = self.hard_stop.cancelled() => None,
        };
        ended.filter(|(ended, _)| ended.is_final() || !self.hard_stop.is_cancelled())
    }

    fn context(&self, delivery: &Delivery, span: &Span, started_at: Timestamp) -> Context {
        let route = &self.settings.name;
        let mut cx = Context::new(route, delivery.event.id().to_string(), self.dispatcher.timeout());
        cx.delivery_id = delivery.id(route);
        cx.attempt = delivery.attempt;
        cx.started_at = started_at;
        cx.trace = Some(span.context());
        // What begins a trace of its own is nothing that others know.
        let is_same = delivery.event.trace().is_some_and(|trace| trace.trace() == span.context().trace());
        cx.trace_state = delivery.event.trace_state().filter(|_| is_same).cloned();
        cx.calls = Some(telemetry::calls());
        cx.cancelled = self.hard_stop.clone();
        cx
    }

    fn circumstances(&self, first_attempt_at: Timestamp, attempt: u32, asked: u32) -> Circumstances {
        let elapsed = since(first_attempt_at, self.clock.now());
        let is_breaker_open = self.breaker.is_open();
        Circumstances { attempt, asked, elapsed, is_breaker_open, chance: fastrand::f64() }
    }

    async fn settle(
        &self,
        delivery: Delivery,
        watch: Watch,
        span: Span,
        (ended, at): (&Ended, Circumstances),
        attempt: Attempt,
    ) {
        let now = self.clock.now();
        let verdict = verdict(ended, at, &self.settings.retry);
        let asked = ended.has_asked();
        self.log(&delivery, &watch, ended, verdict, attempt.took);
        watch::attempted(span, &self.settings.dispatcher, delivery.attempt, &attempt, verdict);
        self.end(delivery, watch, Settlement { verdict, asked, attempt }, now).await;
    }

    async fn end(&self, delivery: Delivery, watch: Watch, settlement: Settlement, now: Timestamp) {
        let (route, about, verdict) = (&self.settings.name, About::of(&delivery), settlement.verdict);
        about.count(route, &settlement.attempt, verdict, now);
        settle(delivery.ticket, settlement, route, &self.hard_stop).await;
        watch.settled(route, &about, verdict);
    }

    /// Without an attempt: what can't be decided can't be delivered.
    async fn bury(&self, delivery: Delivery, watch: Watch, reason: DeadReason, why: String) {
        let (id, route, trace_id) = (delivery.event.id(), &self.settings.name, watch.trace_id());
        tracing::error!(event.id = %id, route, trace_id, error = why, %reason, "given up: a dead letter now");
        let (started_at, detail) = (self.clock.now(), Some(why));
        let attempt =
            Attempt { started_at, took: Duration::ZERO, outcome: Outcome::Permanent, status: None, detail };
        let settlement = Settlement { verdict: Verdict::Dead(reason), asked: false, attempt };
        self.end(delivery, watch, settlement, started_at).await;
    }

    /// Without an attempt: it need not be delivered.
    async fn skip(&self, delivery: Delivery, watch: Watch, why: Skip) {
        let (started_at, ended) = (self.clock.now(), Ended::Skipped(why));
        let attempt = record(&ended, started_at, Duration::ZERO);
        self.log(&delivery, &watch, &ended, Verdict::Done, Duration::ZERO);
        let settlement = Settlement { verdict: Verdict::Done, asked: false, attempt };
        self.end(delivery, watch, settlement, started_at).await;
    }

    fn log(&self, delivery: &Delivery, watch: &Watch, ended: &Ended, verdict: Verdict, took: Duration) {
        let (id, route, attempt) = (delivery.event.id(), &self.settings.name, delivery.attempt);
        let error = explain(ended, Reader::Log).unwrap_or_default();
        let (took_ms, trace_id) = (took.as_millis(), || watch.trace_id());
        match verdict {
            Verdict::Done => match ended {
                Ended::Skipped(why) => {
                    tracing::info!(event.id = %id, route, attempt, trace_id = trace_id(), "{}", why.as_str());
                }
                _ => {
                    tracing::debug!(event.id = %id, route, attempt, took_ms, trace_id = trace_id(), "delivered");
                }
            },
            Verdict::Again(wait) => {
                tracing::warn!(event.id = %id, route, attempt, took_ms, trace_id = trace_id(), error, again_ms = wait.as_millis(), "not delivered");
            }
            Verdict::Dead(reason) => {
                tracing::error!(event.id = %id, route, attempt, took_ms, trace_id = trace_id(), error, %reason, "given up: a dead letter now");
            }
        }
    }
}

/// Runs an attempt. One that runs alone does so for a while only: what kills the process
/// mostly does so soon, and what hangs must not hold up every route.
async fn run<T>(
    mut attempt: Pin<&mut impl Future<Output = T>>,
    ticket: &mut Ticket,
    heartbeat: &mut Heartbeat,
    permit: &mut RunPermit,
) -> Option<T> {
    if let Some(until) = permit.exclusive_until() {
        if let Ok(ended) = heartbeat.during(ticket, timeout_at(until, attempt.as_mut())).await? {
            return Some(ended);
        }
        // Recorded first: if another one kills the process now, this one must not be blamed.
        release(ticket, heartbeat).await;
        permit.let_others_in();
    }
    heartbeat.during(ticket, attempt).await
}

/// Records that what ran alone does so no longer.
async fn release(ticket: &mut Ticket, heartbeat: &mut Heartbeat) {
    if let Err(error) = heartbeat.record(ticket, async |ticket| ticket.accompanied().await).await {
        tracing::warn!(error = %Chain(&error), "others may run beside a suspect, and that could not be recorded");
    }
}

/// Settles, and tries again for a while. Where the process has to stop the delivery is given
/// back instead: a queue that does not answer must not make it look as if it had died.
pub(crate) async fn settle(
    ticket: Ticket,
    settlement: Settlement,
    route: &str,
    hard_stop: &CancellationToken,
) {
    let stopped = async {
        hard_stop.cancelled().await;
        sleep(SETTLE_AT_HARD_STOP).await;
    };
    tokio::select! {
        biased;
        () = settle_unhurried(ticket, settlement, route) => {}
        () = stopped => {
            metrics::UNSETTLED.add(1, [route.to_owned().into()]);
            tracing::warn!(route, "not settled before the process stops: the delivery is given back");
        }
    }
}

async fn settle_unhurried(mut ticket: Ticket, settlement: Settlement, route: &str) {
    for _ in 0..SETTLE_TRIES {
        match ticket.settle(settlement.clone()).await {
            Ok(()) => return,
            Err(Unsettled { source: QueueError::LeaseLost, .. }) => {
                metrics::UNSETTLED.add(1, [route.to_owned().into()]);
                return tracing::warn!(route, "settled too late: somebody else has the delivery");
            }
            Err(unsettled) => {
                tracing::error!(route, error = %Chain(&unsettled), "delivery not settled");
                ticket = unsettled.ticket;
                sleep(SETTLE_AGAIN).await;
            }
        }
    }
    metrics::UNSETTLED.add(1, [route.to_owned().into()]);
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    // A clock that was set back must not look like a long time.
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;
