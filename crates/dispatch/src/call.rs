use std::fmt;

use event_model::TraceParent;

/// What a request is to the one who makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It waits for an answer.
    Client,
    /// It hands a message over.
    Producer,
}

/// An attribute's value: what a dispatcher says of a request. Never what is in the
/// event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// One of a few words, or an address.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for Said {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u16> for Said {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

/// What is said of a request when it ended: names by OpenTelemetry's conventions.
pub type Attributes = Vec<(&'static str, Said)>;

/// Records requests in traces: what runs dispatchers brings it.
pub trait Calls: fmt::Debug + Send + Sync {
    /// Begins one, as a part of `parent`.
    fn begin(&self, parent: TraceParent, role: Role, name: &'static str) -> Box<dyn Recorded>;
}

/// A request that is being recorded. Dropped, it was cut off.
pub trait Recorded: fmt::Debug + Send + Sync {
    /// What the destination is to continue.
    fn trace(&self) -> TraceParent;

    /// Ends it; `why` is one of a few words where it failed. The attributes are asked
    /// for only if they are kept.
    fn end(self: Box<Self>, why: Option<&str>, attributes: &mut dyn FnMut() -> Attributes);
}

/// A request to the destination, as the event's trace shows it:
/// [`Context::call`](crate::Context::call).
#[derive(Debug)]
pub struct Call {
    recorded: Option<Box<dyn Recorded>>,
    trace: Option<TraceParent>,
}

impl Call {
    pub(crate) fn begin(
        calls: Option<&dyn Calls>,
        parent: Option<TraceParent>,
        role: Role,
        name: &'static str,
    ) -> Self {
        let recorded = calls.zip(parent).map(|(calls, parent)| calls.begin(parent, role, name));
        let trace = recorded.as_ref().map(|recorded| recorded.trace()).or(parent);
        Self { recorded, trace }
    }

    /// What the destination is to continue, as its `traceparent`.
    pub fn trace(&self) -> Option<TraceParent> {
        self.trace
    }

    /// It was answered; whether well, the attributes say. They are asked for only if
    /// they are kept.
    pub fn answered(self, attributes: impl FnMut() -> Attributes) {
        self.end(None, attributes);
    }

    /// It failed: why, in one of a few words.
    pub fn failed(self, why: &str, attributes: impl FnMut() -> Attributes) {
        self.end(Some(why), attributes);
    }

    fn end(self, why: Option<&str>, mut attributes: impl FnMut() -> Attributes) {
        if let Some(recorded) = self.recorded {
            recorded.end(why, &mut attributes);
        }
    }
}
