//! Spans: pieces of work in a trace.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use event_model::TraceParent;
use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::start::tracing_now;

/// The part of a span's work in a trace, in OpenTelemetry's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Answers a request.
    Server,
    /// Makes a request.
    Client,
    /// Hands a message over.
    Producer,
    /// Takes a message.
    Consumer,
    /// Is not visible outside.
    Internal,
}

/// The origin of a span.
#[derive(Clone, Copy, Debug)]
pub enum Parent {
    /// No known origin: the span begins a trace.
    Root,
    /// A span of this process: the new one continues its trace.
    Local(TraceParent),
    /// A span of another process: the new one continues its trace.
    Remote(TraceParent),
    /// A span long ago, or a stranger's: the new one begins a trace, with a link to it.
    Link(TraceParent),
}

impl Parent {
    /// The origin for a caller's `traceparent`: a parent only if callers are trusted, and
    /// otherwise a link.
    pub fn said_by_caller(traceparent: Option<TraceParent>) -> Self {
        match traceparent {
            None => Self::Root,
            Some(said) if tracing_now().sampling.trust_callers => Self::Remote(said),
            Some(said) => Self::Link(said),
        }
    }
}

/// The result of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanStatus<'r> {
    /// Success, also if a caller was rightly refused.
    Ok,
    /// Failure, with its `error.type`, one of a few words.
    Failed(&'r str),
}

/// A piece of work in a trace. It is recorded when it ends, if its trace is sampled or if it
/// failed. Until then it costs two readings of a clock. A span that is dropped before its end was
/// cut off.
#[derive(Debug)]
#[must_use = "a span is recorded when it ends"]
pub struct Span {
    name: Cow<'static, str>,
    kind: Kind,
    context: TraceParent,
    cause: Parent,
    started_at: SystemTime,
    began: Instant,
    is_over: bool,
}

impl Span {
    /// Begins a span now.
    #[expect(
        clippy::disallowed_methods,
        reason = "a trace's times are the machine's"
    )]
    pub fn begin(kind: Kind, name: impl Into<Cow<'static, str>>, cause: Parent) -> Self {
        let context = match cause {
            Parent::Local(parent) | Parent::Remote(parent) => parent.child(fastrand::u64(1..)),
            Parent::Root | Parent::Link(_) => tracing_now().sampling.begin(),
        };
        let started_at = SystemTime::now();
        let began = Instant::now();
        Self {
            name: name.into(),
            kind,
            context,
            cause,
            started_at,
            began,
            is_over: false,
        }
    }

    /// Begins a span that started `ago` before now.
    pub fn since(kind: Kind, name: &'static str, cause: Parent, ago: Duration) -> Self {
        let mut span = Self::begin(kind, name, cause);
        span.began = span.began.checked_sub(ago).unwrap_or(span.began);
        span.started_at -= span.began.elapsed().min(ago);
        span
    }

    /// Begins a span as a part of this one.
    pub fn child(&self, kind: Kind, name: impl Into<Cow<'static, str>>) -> Self {
        Self::begin(kind, name, Parent::Local(self.context))
    }

    /// The context to hand on with the work, so that what it causes joins the trace.
    pub fn context(&self) -> TraceParent {
        self.context
    }

    /// Ends the span. `attributes` is called only if it is recorded. It returns names and words
    /// of a few values, ids and sizes, never a part of an event.
    pub fn end(mut self, ended: SpanStatus<'_>, attributes: impl FnOnce() -> Vec<KeyValue>) {
        self.is_over = true;
        if self.is_kept(ended) {
            self.record(ended, attributes());
        }
    }

    /// Drops the span without a record, since there was nothing to do.
    pub fn discard(mut self) {
        self.is_over = true;
    }

    fn is_kept(&self, ended: SpanStatus<'_>) -> bool {
        let now = tracing_now();
        now.processor.is_some()
            && (self.context.is_sampled()
                || (now.sampling.keep_failures && ended != SpanStatus::Ok))
    }

    fn record(&self, ended: SpanStatus<'_>, mut attributes: Vec<KeyValue>) {
        let status = match ended {
            SpanStatus::Ok => Status::Unset,
            SpanStatus::Failed(reason) => {
                attributes.push(KeyValue::new("error.type", reason.to_owned()));
                Status::error(reason.to_owned())
            }
        };
        let (parent, links) = match self.cause {
            Parent::Root => (None, SpanLinks::default()),
            Parent::Local(parent) | Parent::Remote(parent) => (Some(parent), SpanLinks::default()),
            Parent::Link(there) => (None, link(there)),
        };
        tracing_now().record(SpanData {
            span_context: context_of(self.context, true),
            parent_span_id: parent.map_or(SpanId::INVALID, |parent| SpanId::from(parent.span_id())),
            parent_span_is_remote: matches!(self.cause, Parent::Remote(_)),
            span_kind: self.kind.into(),
            name: self.name.clone(),
            start_time: self.started_at,
            end_time: self.started_at + self.began.elapsed(),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status,
            instrumentation_scope: InstrumentationScope::builder("fluent-webhooks")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        });
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let ended = SpanStatus::Failed("cut-off");
        if !self.is_over && self.is_kept(ended) {
            self.record(ended, Vec::new());
        }
    }
}

impl From<Kind> for SpanKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Server => Self::Server,
            Kind::Client => Self::Client,
            Kind::Producer => Self::Producer,
            Kind::Consumer => Self::Consumer,
            Kind::Internal => Self::Internal,
        }
    }
}

fn link(there: TraceParent) -> SpanLinks {
    let mut links = SpanLinks::default();
    links
        .links
        .push(Link::with_context(context_of(there, there.is_sampled())));
    links
}

fn context_of(trace: TraceParent, is_recorded: bool) -> SpanContext {
    SpanContext::new(
        TraceId::from(trace.trace()),
        SpanId::from(trace.span_id()),
        TraceFlags::default().with_sampled(is_recorded),
        false,
        TraceState::NONE,
    )
}
