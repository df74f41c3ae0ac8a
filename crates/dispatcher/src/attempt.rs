//! One attempt: run the dispatcher within its bounds, report, settle.

mod settle;
mod steps;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use dispatch::{AnyDispatcher, CancellationToken, Context};
use enrichment::Enrichment;
use event_model::{Clock, Origin, Timestamp};
use queue::{DeadReason, Delivery, QueueError, Ticket};
use settings::RouteSettings;
use telemetry::{ErrorChain, Span};
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) use self::settle::settle;
use self::steps::DuplicateChecks;
use crate::breaker::{Breaker, BreakerAttempt};
use crate::delivery_telemetry::{self, DeliveryInfo, DeliveryTelemetry};
use crate::heartbeat::Heartbeat;
use crate::isolation::{Isolation, NotProvenAlone, RunPermit};
use crate::note_retry::NoteRetry;
use crate::notify::OutcomeHooks;
use crate::policy::{AttemptResult, RetryInput, SkipReason};
use crate::reconciled_dedup::ReconciledDedup;
use crate::report::AttemptReport;
use crate::same_id::SameId;

/// Runs the attempts of a route.
#[derive(Debug)]
pub(crate) struct AttemptRunner {
    pub(crate) settings: RouteSettings,
    pub(crate) dispatcher: AnyDispatcher,
    pub(crate) enrichment: Option<Enrichment>,
    pub(crate) then: OutcomeHooks,
    pub(crate) dedup: Option<ReconciledDedup>,
    pub(crate) same_id: Option<SameId>,
    pub(crate) notes: NoteRetry,
    pub(crate) isolation: Isolation,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Time that a delivery may be held without a heartbeat.
    pub(crate) lease: Duration,
    pub(crate) hard_stop: CancellationToken,
}

/// Longest time for which a delivery that is being settled keeps its permit to run. A settlement
/// that waits for room may take days, and by then the queue has noted that the attempt has ended:
/// no suspect need wait for it.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);

impl AttemptRunner {
    pub(crate) async fn run(&self, mut delivery: Delivery, begun: BreakerAttempt) {
        let now = self.clock.now();
        let watch = DeliveryTelemetry::begin(&delivery, now);
        let age = DeliveryAge::of(&delivery, now);
        // An expression costs as much as the rest of an attempt, so it is evaluated once.
        let matches = match delivery.matched.take() {
            Some(decided) => decided.map(|()| true),
            None => self.settings.terms.decide(&delivery.event),
        };
        match matches {
            Err(why) => {
                let undecided =
                    AttemptResult::Undeliverable(DeadReason::Undecided, why.to_string());
                return self.end_unattempted(delivery, watch, age, undecided).await;
            }
            Ok(false) if delivery.asks_match => {
                return self
                    .end_unattempted(
                        delivery,
                        watch,
                        age,
                        AttemptResult::Skipped(SkipReason::NotMatched),
                    )
                    .await;
            }
            Ok(_) => {}
        }
        let mut heartbeat = Heartbeat::new(self.lease);
        let permitted = self
            .hard_stop
            .run_until_cancelled(self.permit(&mut delivery, &mut heartbeat))
            .await;
        match permitted.flatten() {
            Some(Ok(permit)) => {
                self.attempt(delivery, watch, age, begun, heartbeat, permit)
                    .await
            }
            Some(Err(NotProvenAlone)) => {
                let crashes = delivery.deaths;
                let why = format!(
                    "the process died {crashes} times while this event was attempted; not proven alone"
                );
                let crash = AttemptResult::Undeliverable(DeadReason::Crash, why);
                self.end_unattempted(delivery, watch, age, crash).await;
            }
            // The lease is lost, a suspect runs alone, or the process stops: dropping the delivery
            // gives it back.
            None => {}
        }
    }

    /// Waits for the permit to run the delivery. `None` if its lease was lost, a suspect keeps it
    /// out, or its exclusive run could not be recorded.
    async fn permit(
        &self,
        delivery: &mut Delivery,
        heartbeat: &mut Heartbeat,
    ) -> Option<Result<RunPermit, NotProvenAlone>> {
        let Delivery {
            event,
            ticket,
            deaths,
            ..
        } = delivery;
        let is_suspect = Isolation::is_suspect(*deaths);
        if is_suspect {
            // It may wait for minutes. If another attempt crashes the process meanwhile, this one
            // is not to blame; if that can't be recorded, it is blamed once too often.
            let recorded = heartbeat
                .record(ticket, async |ticket| ticket.mark_waiting().await)
                .await;
            match recorded {
                Err(QueueError::LeaseLost) => return None,
                Err(error) => {
                    tracing::warn!(event.id = %event.id(), route = self.settings.name, error = %ErrorChain(&error), "it can't be recorded that a suspect waits for its turn");
                }
                Ok(()) => {}
            }
        }
        let permitted = heartbeat
            .during(ticket, self.isolation.enter_unless_kept_out(*deaths))
            .await??;
        let Ok(permit) = permitted else {
            return Some(permitted);
        };
        if let Some(until) = permit.exclusive_until() {
            tracing::warn!(event.id = %event.id(), route = self.settings.name, deaths, "suspected of killing the process: attempted alone");
            let recorded = heartbeat.record(ticket, async |ticket| ticket.mark_exclusive().await);
            timeout_at(until, recorded).await.ok()?.ok()?;
        } else if is_suspect {
            let begins = heartbeat.record(ticket, async |ticket| ticket.mark_shared().await);
            begins.await.ok()?;
        }
        Some(Ok(permit))
    }

    async fn attempt(
        &self,
        mut delivery: Delivery,
        watch: DeliveryTelemetry,
        age: DeliveryAge,
        begun: BreakerAttempt,
        mut heartbeat: Heartbeat,
        mut permit: RunPermit,
    ) {
        let span = watch.attempt();
        let cx = self.context(&delivery, &span, self.clock.now());
        let report = self
            .report(&mut delivery, cx, age, begun, &mut heartbeat, &mut permit)
            .await;
        // The lease is lost, or the attempt was interrupted: dropping the delivery gives it back.
        let Some(report) = report else { return };
        if permit.exclusive_until().is_some() {
            // Settling may take longer than others are kept out. The attempt is over: it can't be
            // the cause of a later crash.
            let released = release(&mut delivery.ticket, &mut heartbeat);
            self.hard_stop.run_until_cancelled(released).await;
        }
        delivery_telemetry::attempted(span, &self.settings.dispatcher, delivery.attempt, &report);
        let mut ending = pin!(self.end(delivery, watch, report));
        // A suspect is cleared by its settlement, not before.
        let ended = timeout(SETTLES_WITHIN, &mut ending).await;
        drop(permit);
        if ended.is_err() {
            ending.await;
        }
    }

    /// Runs the attempt and reports how it ended. `None` if the lease was lost, or if the process
    /// had to stop: then nobody knows whether the stop made the attempt fail.
    async fn report(
        &self,
        delivery: &mut Delivery,
        cx: Context,
        age: DeliveryAge,
        begun: BreakerAttempt,
        heartbeat: &mut Heartbeat,
        permit: &mut RunPermit,
    ) -> Option<AttemptReport> {
        let Delivery {
            event,
            ticket,
            redrive,
            attempt,
            asked,
            ..
        } = delivery;
        let is_sent_again = *redrive > 0 && event.origin() == Origin::Webhook;
        let others = DuplicateChecks {
            dedup: self.dedup.as_ref().filter(|_| !is_sent_again),
            same_id: self.same_id.as_ref(),
            // A person who redrives it wants it delivered.
            may_skip_same_id: *redrive == 0,
        };
        let now = || self.retry_input(age, *attempt, *asked);
        let attempting = pin!(self.run_steps(event, cx, others, begun, now));
        let running = run(attempting, ticket, heartbeat, permit);
        let report = tokio::select! {
            biased;
            report = running => report,
            () = self.hard_stop.cancelled() => None,
        };
        report.filter(|report| report.is_final() || !self.hard_stop.is_cancelled())
    }

    fn context(&self, delivery: &Delivery, span: &Span, started_at: Timestamp) -> Context {
        let route = &self.settings.name;
        let mut cx = Context::new(
            route,
            delivery.event.id().to_string(),
            self.dispatcher.timeout(),
        );
        cx.delivery_id = delivery.id(route);
        cx.attempt = delivery.attempt;
        cx.started_at = started_at;
        cx.trace = Some(span.context());
        // A trace that begins here is known to nobody else.
        let is_same = delivery
            .event
            .trace()
            .is_some_and(|trace| trace.trace() == span.context().trace());
        cx.trace_state = delivery.event.trace_state().filter(|_| is_same).cloned();
        cx.tracer = Some(telemetry::calls());
        cx.cancellation = self.hard_stop.clone();
        cx
    }

    fn retry_input(&self, age: DeliveryAge, attempt: u32, asked: u32) -> RetryInput {
        let elapsed = age.now();
        let is_breaker_open = self.breaker.is_open();
        RetryInput {
            attempt,
            asked,
            elapsed,
            is_breaker_open,
            chance: fastrand::f64(),
        }
    }

    /// Settles a delivery without an attempt, since it need not or can't be delivered.
    async fn end_unattempted(
        &self,
        delivery: Delivery,
        watch: DeliveryTelemetry,
        age: DeliveryAge,
        why: AttemptResult,
    ) {
        let at = self.retry_input(age, delivery.attempt, delivery.asked);
        let now = self.clock.now();
        let report = AttemptReport::decide(why, at, &self.settings.retry, now, Duration::ZERO);
        self.end(delivery, watch, report).await;
    }

    async fn end(&self, delivery: Delivery, watch: DeliveryTelemetry, report: AttemptReport) {
        let route = &self.settings.name;
        let about = DeliveryInfo::of(&delivery);
        let ended = delivery_telemetry::ended(&report);
        report.log(delivery.event.id(), route, delivery.attempt, || {
            watch.trace_id()
        });
        about.count(route, &report, self.clock.now());
        settle(
            delivery.ticket,
            report.into_settlement(),
            route,
            &self.hard_stop,
        )
        .await;
        watch.settled(route, &about, ended);
    }
}

/// Runs an attempt. An exclusive one ends being exclusive after a time: what crashes the process
/// mostly does so soon, and an attempt that hangs must not hold up every route.
async fn run<T>(
    mut attempt: Pin<&mut impl Future<Output = T>>,
    ticket: &mut Ticket,
    heartbeat: &mut Heartbeat,
    permit: &mut RunPermit,
) -> Option<T> {
    if let Some(until) = permit.exclusive_until() {
        if let Ok(ended) = heartbeat
            .during(ticket, timeout_at(until, attempt.as_mut()))
            .await?
        {
            return Some(ended);
        }
        // Recorded first: if another attempt crashes the process now, this one must not be
        // blamed.
        release(ticket, heartbeat).await;
        permit.downgrade();
    }
    heartbeat.during(ticket, attempt).await
}

/// Records that an attempt is no longer exclusive.
async fn release(ticket: &mut Ticket, heartbeat: &mut Heartbeat) {
    if let Err(error) = heartbeat
        .record(ticket, async |ticket| ticket.mark_shared().await)
        .await
    {
        tracing::warn!(error = %ErrorChain(&error), "others may run beside a suspect, and that could not be recorded");
    }
}

/// Time since the first attempt of a delivery began. Only when this attempt begins is it read from
/// the clock: one that is set meanwhile changes nothing.
#[derive(Clone, Copy, Debug)]
struct DeliveryAge {
    at_beginning: Duration,
    began: Instant,
}

impl DeliveryAge {
    /// Of a delivery whose attempt begins now.
    fn of(delivery: &Delivery, now: Timestamp) -> Self {
        Self {
            at_beginning: since(delivery.first_attempt_at, now),
            began: Instant::now(),
        }
    }

    fn now(self) -> Duration {
        self.at_beginning.saturating_add(self.began.elapsed())
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    // A clock that was set back must not look like a long time.
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests;
