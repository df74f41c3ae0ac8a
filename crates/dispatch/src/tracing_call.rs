//! Requests to a destination, as spans in the event's trace.

use std::fmt;

use event_model::TraceParent;

/// Kind of a request, from the view of the process that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Waits for an answer.
    Client,
    /// Hands a message over.
    Producer,
}

/// Value of an attribute, by which a dispatcher describes a request. Never data of the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// One of a few words, or an address.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u16> for AttributeValue {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

/// Attributes of a request that has ended, with names by OpenTelemetry's conventions.
pub type Attributes = Vec<(&'static str, AttributeValue)>;

/// Records requests in traces. The process that runs dispatchers provides it.
pub trait CallTracer: fmt::Debug + Send + Sync {
    /// Begins to record a request, as a part of `parent`.
    fn begin(&self, parent: TraceParent, role: Role, name: &'static str) -> Box<dyn ActiveSpan>;
}

/// A request that is being recorded. If it is dropped, the request was cut off.
pub trait ActiveSpan: fmt::Debug + Send + Sync {
    /// Returns the trace that the destination should continue.
    fn trace(&self) -> TraceParent;

    /// Ends the request; `why` is one of a few words if it failed. The attributes are asked for
    /// only if they are kept.
    fn end(self: Box<Self>, why: Option<&str>, attributes: &mut dyn FnMut() -> Attributes);
}

/// A request to the destination, as the event's trace shows it, begun by
/// [`Context::call`](crate::Context::call).
#[derive(Debug)]
pub struct CallSpan {
    span: Option<Box<dyn ActiveSpan>>,
    trace: Option<TraceParent>,
}

impl CallSpan {
    pub(crate) fn begin(
        calls: Option<&dyn CallTracer>,
        parent: Option<TraceParent>,
        role: Role,
        name: &'static str,
    ) -> Self {
        let recorded = calls
            .zip(parent)
            .map(|(calls, parent)| calls.begin(parent, role, name));
        let trace = recorded
            .as_ref()
            .map(|recorded| recorded.trace())
            .or(parent);
        Self {
            span: recorded,
            trace,
        }
    }

    /// Returns the trace that the destination should continue, for its `traceparent`.
    pub fn trace(&self) -> Option<TraceParent> {
        self.trace
    }

    /// Ends the request as answered; whether well, the attributes say. They are asked for only if
    /// they are kept.
    pub fn answered(self, attributes: impl FnMut() -> Attributes) {
        self.end(None, attributes);
    }

    /// Ends the request as failed, for a reason of a few words.
    pub fn failed(self, why: &str, attributes: impl FnMut() -> Attributes) {
        self.end(Some(why), attributes);
    }

    fn end(self, why: Option<&str>, mut attributes: impl FnMut() -> Attributes) {
        if let Some(recorded) = self.span {
            recorded.end(why, &mut attributes);
        }
    }
}
