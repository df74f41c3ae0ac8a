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
use tokio::time::{sleep, timeout};

use crate::breaker::{Begun, Breaker};
use crate::explain::{Reader, explain, record};
use crate::gate::{Gate, Pass, is_certain};
use crate::heartbeat::Heartbeat;
use crate::policy::{Circumstances, Ended, Skip, verdict};
use crate::then::Then;
use crate::twins::Twins;
use crate::watch::{self, About, Watch};

/// How often, and how soon, to try again to settle. After that the delivery
/// goes back to the queue: the event may be delivered twice, and is never lost.
const SETTLE_TRIES: u32 = 5;
const SETTLE_AGAIN: Duration = Duration::from_millis(300);

/// How long a suspect runs alone.
const ALONE_FOR: Duration = Duration::from_secs(5);

/// What every attempt of a route needs.
#[derive(Debug)]
pub(crate) struct Attempting {
    pub(crate) settings: RouteSettings,
    pub(crate) dispatcher: AnyDispatcher,
    pub(crate) enrichment: Option<Enrichment>,
    pub(crate) then: Then,
    pub(crate) twins: Option<Twins>,
    pub(crate) gate: Gate,
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
        let deaths = delivery.deaths;
        let mut heartbeat = Heartbeat::new(self.lease);
        let permitted = heartbeat.during(&mut delivery.ticket, self.gate.enter(deaths));
        let Some(Some(mut pass)) = self.hard_stop.run_until_cancelled(permitted).await else { return };
        if pass.is_alone() {
            tracing::warn!(event.id = %delivery.event.id(), route = self.settings.name, deaths, "suspected of killing the process: attempted alone");
            if delivery.ticket.alone().await.is_err() {
                return;
            }
        }
        let (started_at, began) = (self.clock.now(), Instant::now());
        let span = watch.attempt();
        let (cx, event) = (self.context(&delivery, &span, started_at), Arc::clone(&delivery.event));
        let (first, number) = (delivery.first_attempt_at, delivery.attempt);
        let now = || self.circumstances(first, number);
        let is_sent_again = delivery.redrive > 0 && event.origin() == Origin::Webhook;
        let twins = self.twins.as_ref().filter(|_| !is_sent_again);
        let attempt = pin!(self.whole(&event, cx, twins, now));
        let ended = tokio::select! {
            biased;
            ended = run(attempt, &mut delivery.ticket, &mut heartbeat, &mut pass, deaths) => ended,
            () = self.hard_stop.cancelled() => None,
        };
        // Lost or interrupted: dropping the delivery gives it back.
        let Some((ended, at)) = ended else { return };
        if self.hard_stop.is_cancelled() && !ended.is_final() {
            return;
        }
        match ended.is_failure() {
            Some(failed) => begun.ended(failed),
            None => drop(begun),
        }
        let attempt = record(&ended, started_at, began.elapsed());
        self.settle(delivery, watch, span, (&ended, at), attempt).await;
        // A suspect is cleared by its settlement, not before.
        drop(pass);
    }

    fn context(&self, delivery: &Delivery, span: &Span, started_at: Timestamp) -> Context {
        let route = &self.settings.name;
        let mut cx = Context::new(route, delivery.event.id().to_string(), self.dispatcher.timeout());
        cx.delivery_id = delivery.id(route);
        cx.attempt = delivery.attempt;
        cx.started_at = started_at;
        cx.trace = Some(span.context());
        cx.calls = Some(telemetry::calls());
        cx.cancelled = self.hard_stop.clone();
        cx
    }

    fn circumstances(&self, first_attempt_at: Timestamp, attempt: u32) -> Circumstances {
        let elapsed = since(first_attempt_at, self.clock.now());
        Circumstances { attempt, elapsed, chance: fastrand::f64() }
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
        self.log(&delivery, &watch, ended, verdict, attempt.took);
        watch::attempted(span, &self.settings.dispatcher, delivery.attempt, &attempt, verdict);
        self.end(delivery, watch, Settlement { verdict, attempt }, now).await;
    }

    async fn end(&self, delivery: Delivery, watch: Watch, settlement: Settlement, now: Timestamp) {
        let (route, about, verdict) = (&self.settings.name, About::of(&delivery), settlement.verdict);
        about.count(route, &settlement.attempt, verdict, now);
        settle(delivery.ticket, settlement, route).await;
        watch.settled(route, &about, verdict);
    }

    /// Without an attempt: what can't be decided can't be delivered.
    async fn bury(&self, delivery: Delivery, watch: Watch, reason: DeadReason, why: String) {
        let (id, route, trace_id) = (delivery.event.id(), &self.settings.name, watch.trace_id());
        tracing::error!(event.id = %id, route, trace_id, error = why, %reason, "given up: a dead letter now");
        let (started_at, detail) = (self.clock.now(), Some(why));
        let attempt =
            Attempt { started_at, took: Duration::ZERO, outcome: Outcome::Permanent, status: None, detail };
        self.end(delivery, watch, Settlement { verdict: Verdict::Dead(reason), attempt }, started_at).await;
    }

    /// Without an attempt: it need not be delivered.
    async fn skip(&self, delivery: Delivery, watch: Watch, why: Skip) {
        let (started_at, ended) = (self.clock.now(), Ended::Skipped(why));
        let attempt = record(&ended, started_at, Duration::ZERO);
        self.log(&delivery, &watch, &ended, Verdict::Done, Duration::ZERO);
        self.end(delivery, watch, Settlement { verdict: Verdict::Done, attempt }, started_at).await;
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

/// Runs an attempt. One that runs alone does so for a while only: what kills the
/// process mostly does it soon, and what hangs must not hold up every route. What
/// died too often stays alone to its end.
async fn run<T>(
    mut attempt: Pin<&mut impl Future<Output = T>>,
    ticket: &mut Ticket,
    heartbeat: &mut Heartbeat,
    pass: &mut Pass,
    deaths: u32,
) -> Option<T> {
    if pass.is_alone() && !is_certain(deaths) {
        match heartbeat.during(ticket, timeout(ALONE_FOR, attempt.as_mut())).await? {
            Ok(ended) => return Some(ended),
            Err(_) if ticket.accompanied().await.is_ok() => pass.let_others_in(),
            Err(_) => {}
        }
    }
    heartbeat.during(ticket, attempt).await
}

pub(crate) async fn settle(mut ticket: Ticket, settlement: Settlement, route: &str) {
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
mod tests {
    use super::*;
    use crate::testing::{FakeLease, LEASE, Scripted, attempting};

    async fn attempt(attempting: &Attempting, lease: &FakeLease, deaths: u32) {
        let begun = Begun::on(&attempting.breaker);
        attempting.run(lease.delivery("a", deaths), begun).await;
    }

    #[tokio::test(start_paused = true)]
    async fn no_lease_is_silent_for_more_than_a_third_of_it() {
        for (waits, takes) in [(3, 9), (9, 12), (119, 9), (200, 25)] {
            let (gate, lease) = (Gate::default(), FakeLease::default());
            let dispatcher = Scripted::done_after(Duration::from_secs(takes));
            let attempting = attempting(dispatcher, &gate, &CancellationToken::new());
            let beside = gate.enter(0).await;
            let leaves = async {
                sleep(Duration::from_secs(waits)).await;
                drop(beside);
            };
            tokio::join!(attempt(&attempting, &lease, 2), leaves);
            assert_eq!(lease.fate(|fate| fate.settled.len()), 1, "after {waits} s, in {takes} s");
            let silence = lease.longest_silence();
            assert!(silence <= LEASE / 3 + Duration::from_millis(10), "{silence:?} after {waits} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_outlasts_its_lease_is_settled_once() {
        let (gate, lease) = (Gate::default(), FakeLease::default());
        let dispatcher = Scripted::done_after(LEASE * 7);
        let attempting = attempting(dispatcher, &gate, &CancellationToken::new());
        attempt(&attempting, &lease, 0).await;
        assert_eq!(lease.fate(|fate| fate.settled.len()), 1);
        assert!(!lease.fate(|fate| fate.is_given_back));
    }
}
