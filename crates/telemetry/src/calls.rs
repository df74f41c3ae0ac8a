//! Spans for the calls that dispatchers make to their destinations.

use std::sync::{Arc, LazyLock};

use dispatch::{ActiveSpan, AttributeValue, Attributes, CallTracer, Role};
use event_model::TraceParent;
use opentelemetry::{KeyValue, Value};

use crate::span::{Kind, Parent, Span, SpanStatus};

/// The tracer of dispatchers' calls, for `dispatch::Context`. Each call is a span of the attempt.
pub fn calls() -> Arc<dyn CallTracer> {
    static CALLS: LazyLock<Arc<dyn CallTracer>> = LazyLock::new(|| Arc::new(Recording));
    Arc::clone(&CALLS)
}

#[derive(Debug)]
struct Recording;

impl CallTracer for Recording {
    fn begin(&self, parent: TraceParent, role: Role, name: &'static str) -> Box<dyn ActiveSpan> {
        let kind = match role {
            Role::Client => Kind::Client,
            Role::Producer => Kind::Producer,
        };
        Box::new(Span::begin(kind, name, Parent::Local(parent)))
    }
}

impl ActiveSpan for Span {
    fn trace(&self) -> TraceParent {
        self.context()
    }

    fn end(self: Box<Self>, why: Option<&str>, attributes: &mut dyn FnMut() -> Attributes) {
        let said = || {
            attributes()
                .into_iter()
                .map(|(name, said)| KeyValue::new(name, value(said)))
                .collect()
        };
        Span::end(*self, why.map_or(SpanStatus::Ok, SpanStatus::Failed), said);
    }
}

fn value(said: AttributeValue) -> Value {
    match said {
        AttributeValue::Text(text) => text.into(),
        AttributeValue::Number(number) => number.into(),
    }
}
