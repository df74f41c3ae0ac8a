//! The steps of an attempt, from the checks before it to the notification after it.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use dispatch::{
    AnyDispatcher, Context, DeliveryOutcome, DispatchError, Done, ResponseCapture, Role,
};
use enrichment::Enriched;
use event_model::Event;
use futures::FutureExt;
use queue::Disposition;
use queue::same_id::GrantedClaim;
use tokio::time::timeout;

use super::AttemptRunner;
use crate::breaker::BreakerAttempt;
use crate::explain::without_excerpt;
use crate::note_retry::NoteRetry;
use crate::notify::{joined, notify};
use crate::policy::{AttemptResult, RetryInput, SkipReason};
use crate::reconciled_dedup::ReconciledDedup;
use crate::report::AttemptReport;
use crate::same_id::SameId;

/// Checks for other events of the same meaning, and whether they may hold back this one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DuplicateChecks<'o> {
    pub(crate) dedup: Option<&'o ReconciledDedup>,
    pub(crate) same_id: Option<&'o SameId>,
    pub(crate) may_skip_same_id: bool,
}

impl<'o> DuplicateChecks<'o> {
    /// Returns the check for the same id, if the route wants one event of an id and another may
    /// stand for this one.
    fn skipping(&self) -> Option<&'o SameId> {
        self.same_id.filter(|_| self.may_skip_same_id)
    }

    /// Notes that the destination has the event, and so needs no other like it. The settlement
    /// waits for that.
    async fn delivered(&self, event: &Event, notes: &NoteRetry) {
        if let Some(dedup) = self.dedup {
            dedup.note_delivered(event, notes).await;
        }
        if let Some(same_id) = self.same_id {
            same_id.delivered(event, notes).await;
        }
    }
}

impl AttemptRunner {
    /// Runs the steps: checks whether the event is needed, enriches it if the route wants that,
    /// dispatches it, and notifies the outcome hooks. Each step has bounds of its own.
    ///
    /// The outcome is decided once, at the time that `now` gives, before a hook is notified of a
    /// dead letter: so the notification says what is then settled, however long notifying takes.
    pub(super) async fn run_steps(
        &self,
        event: &Event,
        mut cx: Context,
        others: DuplicateChecks<'_>,
        begun: BreakerAttempt,
        now: impl Fn() -> RetryInput,
    ) -> AttemptReport {
        let started_at = cx.started_at;
        let began = Instant::now();
        cx.response = self
            .then
            .on_success
            .is_some()
            .then(ResponseCapture::default);
        let mut failed = None;
        let ended = match self.prepare(event, &mut cx, others, now().elapsed).await {
            Err(ended) => ended,
            Ok((others, granted)) => {
                let ended = self.dispatch_with_deadline(event, &cx).await;
                match &ended {
                    AttemptResult::Answered(Ok(_)) => others.delivered(event, &self.notes).await,
                    _ => failed = others.same_id.zip(granted),
                }
                ended
            }
        };
        let ended = match (ended, &self.then.on_success) {
            (AttemptResult::Answered(Ok(done)), Some(whom)) => {
                self.notify_success(whom, event, &cx, done).await
            }
            (ended, _) => ended,
        };
        // Counted first: whether the breaker is open now is part of the decision.
        match (&ended, ended.is_failure()) {
            (AttemptResult::Answered(Err(DispatchError::NotAsked { retry_after, .. })), _) => {
                begun.not_asked(*retry_after)
            }
            (_, Some(failed)) => begun.ended(failed),
            (_, None) => drop(begun),
        }
        // After the breaker: an event that waits for this one may be attempted at once.
        if let Some((same_id, granted)) = failed {
            same_id.failed(event, granted).await;
        }
        let took = began.elapsed();
        let mut report =
            AttemptReport::decide(ended, now(), &self.settings.retry, started_at, took);
        if let Some(remark) = self.notify_dead_letter(event, &cx, &report).await {
            report.remark(&format!("on-dead-letter: {remark}"));
        }
        report
    }

    /// Runs the checks and the enrichment, of which each may end the attempt before it begins.
    /// Returns the checks that have to be told if the destination gets the event, which are none
    /// if there is no other like it, and the claim that has to be released if it fails.
    async fn prepare<'o>(
        &self,
        event: &Event,
        cx: &mut Context,
        others: DuplicateChecks<'o>,
        waited: Duration,
    ) -> Result<(DuplicateChecks<'o>, Option<GrantedClaim>), AttemptResult> {
        let has_twin = match others.dedup {
            Some(dedup) => dedup.check(event).await?,
            None => false,
        };
        // Before Fluent is asked, which is needless for an event that is skipped.
        if let Some(same_id) = others.skipping() {
            same_id.look(event).await?;
        }
        if let Some(ended) = self.ask(event, cx, waited).await {
            return Err(ended);
        }
        // Last, so that others wait for the attempt itself and for nothing before it.
        let granted = match others.skipping() {
            Some(same_id) => Some(same_id.claim(event, self.clock.now(), cx.timeout).await?),
            None => None,
        };
        Ok((
            DuplicateChecks {
                dedup: others.dedup.filter(|_| has_twin),
                ..others
            },
            granted,
        ))
    }

    /// Enriches the event; returns a result if that ends the attempt.
    async fn ask(
        &self,
        event: &Event,
        cx: &mut Context,
        waited: Duration,
    ) -> Option<AttemptResult> {
        let enrichment = self.enrichment.as_ref()?;
        let call = cx.call(Role::Client, "ask Fluent");
        let asked = AssertUnwindSafe(enrichment.enrich(event, waited))
            .catch_unwind()
            .await;
        match &asked {
            Ok(Ok(_)) => call.answered(Vec::new),
            Ok(Err(DispatchError::Permanent { .. })) => call.failed("permanent", Vec::new),
            _ => call.failed("again", Vec::new),
        }
        match asked {
            Ok(Ok(Enriched::Deliver(enriched))) => {
                cx.enriched = enriched;
                None
            }
            Ok(Ok(Enriched::Skip)) => Some(AttemptResult::Skipped(SkipReason::MovedOn)),
            Ok(Err(error)) => Some(AttemptResult::EnrichmentFailed(error)),
            Err(_) => Some(AttemptResult::Panicked),
        }
    }

    async fn notify_success(
        &self,
        whom: &AnyDispatcher,
        event: &Event,
        cx: &Context,
        done: Done,
    ) -> AttemptResult {
        let answer = cx
            .response
            .as_ref()
            .map(ResponseCapture::take)
            .unwrap_or_default();
        let told = DeliveryOutcome::done(done.status, &answer);
        let telling = notify(whom, event, cx, told);
        match AssertUnwindSafe(telling).catch_unwind().await {
            Ok(Ok(told)) => {
                let remark = told.remark.map(|it| format!("on-success: {it}"));
                let remark = remark.map(|it| joined(done.remark.as_deref(), &it));
                let remark = remark.or(done.remark);
                AttemptResult::Answered(Ok(Done { remark, ..done }))
            }
            // Nobody refused: the notification can't be made of this answer. The destination has the
            // event all the same, and would get it again from a dead letter.
            Ok(Err(error @ DispatchError::Permanent { status: None, .. })) => {
                let id = event.id();
                let route = &self.settings.name;
                let why = without_excerpt(&error);
                tracing::error!(event.id = %id, route, error = why, "delivered, and nobody was told: its answer is not what the notification needs");
                AttemptResult::Answered(Ok(with_notification_failure(done, &why)))
            }
            Ok(Err(error)) => AttemptResult::NotificationFailed(error),
            Err(_) => AttemptResult::Panicked,
        }
    }

    /// Notifies of an event that will be a dead letter, for as long as that is tried. The letter
    /// is written in any case: people work through the letters. Returns what is to be remarked.
    async fn notify_dead_letter(
        &self,
        event: &Event,
        cx: &Context,
        report: &AttemptReport,
    ) -> Option<String> {
        let whom = self.then.on_dead_letter.as_ref()?;
        let Disposition::Dead(reason) = report.disposition() else {
            return None;
        };
        let telling = notify(
            whom,
            event,
            cx,
            DeliveryOutcome::dead_letter(reason.as_str()),
        );
        let id = event.id();
        let route = &self.settings.name;
        match AssertUnwindSafe(telling).catch_unwind().await {
            Ok(Ok(done)) => return done.remark,
            Ok(Err(error)) => {
                tracing::error!(event.id = %id, route, error = without_excerpt(&error), "nobody was told of a dead letter");
            }
            Err(_) => {
                tracing::error!(event.id = %id, route, "nobody was told of a dead letter: who is told panicked")
            }
        }
        None
    }

    /// Runs the dispatcher; a panic ends only the attempt, and so does the deadline.
    async fn dispatch_with_deadline(&self, event: &Event, cx: &Context) -> AttemptResult {
        let attempt = AssertUnwindSafe(self.dispatcher.dispatch(event, cx)).catch_unwind();
        match timeout(cx.timeout, attempt).await {
            Ok(Ok(answer)) => AttemptResult::Answered(answer),
            Ok(Err(_)) => AttemptResult::Panicked,
            Err(_) => AttemptResult::TimedOut,
        }
    }
}

fn with_notification_failure(done: Done, why: &str) -> Done {
    let words = format!("delivered, and nobody was told: {why}");
    let remark = joined(done.remark.as_deref(), &words);
    done.remarking(remark)
}
