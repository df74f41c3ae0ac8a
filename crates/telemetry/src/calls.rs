//! Spans for the calls that dispatchers make to their destinations.

use std::sync::{Arc, LazyLock};

use dispatch::{Attributes, Calls, Recorded, Role, Said};
use event_model::TraceParent;
use opentelemetry::{KeyValue, Value};

use crate::span::{Cause, Ended, Kind, Span};

/// The tracer of dispatchers' calls, for `dispatch::Context`. Each call is a span of the attempt.
pub fn calls() -> Arc<dyn Calls> {
    static CALLS: LazyLock<Arc<dyn Calls>> = LazyLock::new(|| Arc::new(Recording));
    Arc::clone(&CALLS)
}

#[derive(Debug)]
struct Recording;

impl Calls for Recording {
    fn begin(&self, parent: TraceParent, role: Role, name: &'static str) -> Box<dyn Recorded> {
        let kind = match role {
            Role::Client => Kind::Client,
            Role::Producer => Kind::Producer,
        };
        Box::new(Span::begin(kind, name, Cause::Here(parent)))
    }
}

impl Recorded for Span {
    fn trace(&self) -> TraceParent {
        self.context()
    }

    fn end(self: Box<Self>, why: Option<&str>, attributes: &mut dyn FnMut() -> Attributes) {
        let said = || attributes().into_iter().map(|(name, said)| KeyValue::new(name, value(said))).collect();
        Span::end(*self, why.map_or(Ended::Well, Ended::Failed), said);
    }
}

fn value(said: Said) -> Value {
    match said {
        Said::Text(text) => text.into(),
        Said::Number(number) => number.into(),
    }
}
