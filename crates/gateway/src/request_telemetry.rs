//! Traces and metrics of one request.

use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use event_model::{
    Clock, Event, Evidence, Malformed, SystemClock, Timestamp, TraceParent, TraceState,
};
use queue::Receipt;
use telemetry::{Attribute, Kind, Label, Parent, Span, SpanStatus, metrics};

use crate::response::ReceiveError;

/// The header by which a caller names its trace.
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Starts at zero the counters whose first event has to raise an alert: `increase` needs a value
/// before it.
pub(crate) fn begin_counters() {
    let not_accepting = ["unavailable", "busy", "over-share", "connections"];
    for reason in
        not_accepting
            .into_iter()
            .chain(["wrong-key", "unknown-account", "unknown-retailer"])
    {
        metrics::REFUSED.add(0, [reason.into()]);
    }
    for reason in [
        "signature-mismatch",
        "signature-missing",
        "busy",
        "over-share",
        "connections",
    ] {
        metrics::REFUSED_KNOWN_CLIENT.add(0, [reason.into()]);
    }
    metrics::QUARANTINE_FULL.add(0, []);
    for reason in Malformed::CODES {
        metrics::QUARANTINED.add(0, [reason.into()]);
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct RequestTelemetry {
    span: Span,
    began: Instant,
    is_post: bool,
}

impl RequestTelemetry {
    pub(crate) fn begin(method: &Method, headers: &HeaderMap) -> Self {
        // The span's name does not have the path, which may have a secret in it.
        let span = Span::begin(
            Kind::Server,
            "POST webhook",
            Parent::said_by_caller(caller(headers)),
        );
        Self {
            span,
            began: Instant::now(),
            is_post: method == Method::POST,
        }
    }

    /// The trace that answers and log lines name.
    pub(crate) fn trace(&self) -> TraceParent {
        self.span.context()
    }

    /// Begins a child span for a part of the work.
    pub(crate) fn part(&self, kind: Kind, name: &'static str) -> Span {
        self.span.child(kind, name)
    }

    /// Ends the span with the answer's status, and with the reason if the webhook was refused.
    pub(crate) fn answered(self, status: StatusCode, refused: Option<&'static str>) {
        if let Some(reason) = refused {
            metrics::REFUSED.add(1, [reason.into()]);
        }
        let method = if self.is_post { "POST" } else { "_OTHER" };
        metrics::ANSWER_TIME.record(
            self.began.elapsed().as_secs_f64(),
            [method.into(), word(status).into()],
        );
        // A refusal by the caller's fault is no failure of ours.
        let ended = match refused {
            Some(reason) if status.is_server_error() => SpanStatus::Failed(reason),
            _ => SpanStatus::Ok,
        };
        self.span.end(ended, || {
            let mut attributes = vec![
                Attribute::new("http.request.method", method),
                Attribute::new("http.response.status_code", i64::from(status.as_u16())),
            ];
            attributes.extend(refused.map(|reason| Attribute::new("fluent.refused", reason)));
            attributes
        });
    }
}

/// The trace state that a caller sent, if `ours` continues the caller's trace. With a trace of
/// our own, others' state has no meaning.
pub(crate) fn carried(headers: &HeaderMap, ours: TraceParent) -> Option<TraceState> {
    caller(headers).filter(|said| said.trace() == ours.trace())?;
    TraceState::read(
        headers
            .get_all(TRACESTATE)
            .iter()
            .map(HeaderValue::as_bytes),
    )
}

/// The trace that the caller says it is a part of. A header that is there twice is ignored.
fn caller(headers: &HeaderMap) -> Option<TraceParent> {
    let mut said = headers.get_all(TRACEPARENT).iter();
    let (only, None) = (said.next()?, said.next()) else {
        return None;
    };
    only.to_str().ok()?.parse().ok()
}

fn word(status: StatusCode) -> String {
    status.as_str().to_owned()
}

/// Ends the span of a verification that succeeded, and counts it by key.
pub(crate) fn verified(span: Span, evidence: &Evidence, now: Timestamp) {
    let labels = || {
        [
            Label::from(evidence.key.name().to_string()),
            evidence.proof.as_str().into(),
        ]
    };
    metrics::VERIFIED.add(1, labels());
    metrics::KEY_LAST_USED.set(now.as_second() as f64, labels());
    span.end(SpanStatus::Ok, || {
        vec![
            Attribute::new("fluent.key", evidence.key.name().to_string()),
            Attribute::new("fluent.algorithm", evidence.proof.as_str()),
        ]
    });
}

/// Ends the span of publishing, whether the event is durable or not.
pub(crate) fn published(
    span: Span,
    event: &Event,
    published: Result<&Receipt, &ReceiveError>,
    took: Duration,
) {
    match published {
        Ok(receipt) if receipt.duplicate => metrics::DUPLICATES.add(1, account_labels(event)),
        Ok(_) => metrics::ACCEPTED.add(1, account_labels(event)),
        Err(_) => {}
    }
    if published.is_ok() {
        metrics::PUBLISH_TIME.record(took.as_secs_f64(), []);
    }
    let ended = published.err().map_or(SpanStatus::Ok, |refused| {
        SpanStatus::Failed(refused.reason())
    });
    span.end(ended, || {
        let mut attributes = event_attributes(event);
        attributes.extend(
            published
                .ok()
                .map(|receipt| Attribute::new("fluent.duplicate", receipt.duplicate)),
        );
        attributes
    });
}

/// The labels of an event's account.
pub(crate) fn account_labels(event: &Event) -> [Label; 2] {
    [
        event.environment().as_str().into(),
        event.account().to_owned().into(),
    ]
}

/// Records that an event which was accepted into the spool has reached the queue. The time that
/// it waited in the spool is in its trace.
pub(crate) fn forwarded(event: &Event) {
    metrics::FORWARDED.add(1, []);
    let Some(trace) = event.trace() else { return };
    let waited = SystemClock.now().duration_since(event.received_at());
    let waited = Duration::try_from(waited).unwrap_or(Duration::ZERO);
    let span = Span::since(
        Kind::Producer,
        "forward from the spool",
        Parent::Remote(trace),
        waited,
    );
    span.end(SpanStatus::Ok, || event_attributes(event));
}

/// The attributes of an event in a span: who it is, never what it contains.
fn event_attributes(event: &Event) -> Vec<Attribute> {
    vec![
        Attribute::new("messaging.operation.name", "publish"),
        Attribute::new("messaging.operation.type", "send"),
        Attribute::new("messaging.destination.name", "fluent.events"),
        Attribute::new("messaging.message.id", event.id().to_string()),
        Attribute::new(
            "messaging.message.body.size",
            i64::try_from(event.body().len()).unwrap_or(i64::MAX),
        ),
        Attribute::new("fluent.event.name", event.name().to_owned()),
        Attribute::new("fluent.account", event.account().to_owned()),
        Attribute::new("fluent.environment", event.environment().as_str()),
    ]
}
