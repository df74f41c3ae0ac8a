//! Telemetry of a delivery while it is attempted: spans and metrics.

use std::sync::Arc;
use std::time::Duration;

use event_model::{Event, Timestamp};
use queue::{Delivery, Disposition};
use telemetry::{Attribute, Kind, Parent, Span, SpanStatus, metrics};

use crate::report::AttemptReport;

/// Age of an event from which an attempt begins a trace of its own that links to the event's: no
/// tracing system keeps a trace open for longer.
const LATE: Duration = Duration::from_hours(24);

/// Span of a delivery, from being handed out to being settled.
#[derive(Debug)]
pub(crate) struct DeliveryTelemetry {
    consume: Span,
}

impl DeliveryTelemetry {
    pub(crate) fn begin(delivery: &Delivery, now: Timestamp) -> Self {
        let is_late = delivery.redrive > 0 || since(delivery.event.received_at(), now) > LATE;
        let cause = match delivery.event.trace() {
            None => Parent::Root,
            Some(trace) if is_late => Parent::Link(trace),
            Some(trace) => Parent::Remote(trace),
        };
        Self {
            consume: Span::begin(Kind::Consumer, "consume", cause),
        }
    }

    /// Returns the trace id for logs.
    pub(crate) fn trace_id(&self) -> String {
        self.consume.context().trace_id()
    }

    /// Begins the span of the dispatcher's part.
    pub(crate) fn attempt(&self) -> Span {
        self.consume.child(Kind::Internal, "attempt")
    }

    /// Ends the span with the settlement.
    pub(crate) fn settled(self, route: &str, about: &DeliveryInfo, ended: SpanStatus<'static>) {
        self.consume.end(ended, || about.consume(route));
    }
}

/// Description of a delivery for telemetry, for when its ticket is gone.
#[derive(Debug)]
pub(crate) struct DeliveryInfo {
    event: Arc<Event>,
    attempt: u32,
    redrive: u32,
    deaths: u32,
}

impl DeliveryInfo {
    pub(crate) fn of(delivery: &Delivery) -> Self {
        let Delivery {
            attempt,
            redrive,
            deaths,
            ..
        } = *delivery;
        Self {
            event: Arc::clone(&delivery.event),
            attempt,
            redrive,
            deaths,
        }
    }

    fn consume(&self, route: &str) -> Vec<Attribute> {
        let mut attributes = vec![
            Attribute::new("messaging.operation.name", "consume"),
            Attribute::new("messaging.operation.type", "process"),
            Attribute::new("messaging.destination.name", "fluent.events"),
            Attribute::new("messaging.consumer.group.name", route.to_owned()),
            Attribute::new("messaging.message.id", self.event.id().to_string()),
            Attribute::new("fluent.event.name", self.event.name().to_owned()),
            Attribute::new("fluent.attempt", i64::from(self.attempt)),
        ];
        for (name, number) in [
            ("fluent.redrive", self.redrive),
            ("fluent.deaths", self.deaths),
        ] {
            attributes.extend((number > 0).then(|| Attribute::new(name, i64::from(number))));
        }
        attributes
    }

    /// Counts an attempt that ended, and what becomes of the delivery.
    pub(crate) fn count(&self, route: &str, report: &AttemptReport, now: Timestamp) {
        let attempt = report.attempt();
        let route = || telemetry::Label::from(route.to_owned());
        metrics::ATTEMPTS.add(1, [route(), attempt.outcome.as_str().into()]);
        metrics::ATTEMPT_TIME.record(attempt.took.as_secs_f64(), [route()]);
        if let Some(why) = report.skipped() {
            metrics::SKIPPED.add(1, [route(), why.code().into()]);
        }
        match report.disposition() {
            Disposition::Done => {
                let whole = since(self.event.received_at(), now);
                metrics::DELIVERY_TIME.record(whole.as_secs_f64(), [route()]);
            }
            Disposition::Dead(reason) => {
                metrics::DEAD_LETTERS.add(1, [route(), reason.as_str().into()])
            }
            Disposition::Again(_) => {}
        }
    }
}

/// Ends the span of an attempt.
pub(crate) fn attempted(span: Span, dispatcher: &str, number: u32, report: &AttemptReport) {
    let attempt = report.attempt();
    let disposition = report.disposition();
    span.end(ended(report), || {
        let mut attributes = vec![
            Attribute::new("fluent.dispatcher", dispatcher.to_owned()),
            Attribute::new("fluent.attempt", i64::from(number)),
            Attribute::new("fluent.outcome", attempt.outcome.as_str()),
        ];
        attributes.extend(
            attempt
                .status
                .map(|status| Attribute::new("fluent.status", i64::from(status))),
        );
        if let Disposition::Again(wait) = disposition {
            let wait = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
            attributes.push(Attribute::new("fluent.retry_after_ms", wait));
        }
        attributes
    });
}

/// Returns the status of an attempt for its spans.
pub(crate) fn ended(report: &AttemptReport) -> SpanStatus<'static> {
    match report.disposition() {
        Disposition::Done => SpanStatus::Ok,
        Disposition::Again(_) if report.is_waiting() => SpanStatus::Ok,
        Disposition::Again(_) => SpanStatus::Failed("again"),
        Disposition::Dead(reason) => SpanStatus::Failed(reason.as_str()),
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    // A clock that was set back must not look like a long time.
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}
