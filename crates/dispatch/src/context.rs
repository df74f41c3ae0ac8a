use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use event_model::{ExactJson, Timestamp, TraceParent, TraceState};
use tokio_util::sync::CancellationToken;

use crate::call::{Call, Calls, Role};
use crate::outcome::{Keep, Told};

/// What a dispatcher is told about the attempt it is making.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Context {
    /// The route that the event took.
    pub route: String,
    /// Names the delivery; differs from the event's id after a redrive.
    pub delivery_id: String,
    /// The same for every attempt and redrive of an event: what a destination
    /// should remember to have done.
    pub idempotency_key: String,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// When this attempt began.
    pub started_at: Timestamp,
    /// How long this attempt may take; it is dropped after that.
    pub timeout: Duration,
    /// The attempt, in the event's trace. What a request gives to its destination is
    /// [`Context::call`]'s.
    pub trace: Option<TraceParent>,
    /// What tracing systems want to be carried with the trace: W3C's `tracestate`. A
    /// request has it beside the `traceparent` that it has from [`Context::call`].
    pub trace_state: Option<TraceState>,
    /// What the route asked Fluent's API about the event: the answer's `data`, with every
    /// number as Fluent wrote it.
    pub enriched: Option<ExactJson>,
    /// Of whoever is told of another delivery (`on-success`, `on-dead-letter`): what
    /// became of it.
    pub told: Option<Arc<Told>>,
    /// Where the answer goes, if somebody is told of it.
    pub keep: Option<Keep>,
    /// Records the requests that are made.
    pub calls: Option<Arc<dyn Calls>>,
    /// Fires when the service is out of patience; give up promptly.
    pub cancelled: CancellationToken,
}

impl Context {
    /// The first attempt of `idempotency_key` on `route`, begun in 1970. Change
    /// the fields for anything else.
    pub fn new(route: impl Into<String>, idempotency_key: impl Into<String>, timeout: Duration) -> Self {
        let idempotency_key = idempotency_key.into();
        Self {
            route: route.into(),
            delivery_id: idempotency_key.clone(),
            idempotency_key,
            attempt: 1,
            started_at: Timestamp::UNIX_EPOCH,
            timeout,
            trace: None,
            trace_state: None,
            enriched: None,
            told: None,
            keep: None,
            calls: None,
            cancelled: CancellationToken::new(),
        }
    }

    /// Whether somebody is told of the destination's answer: then read it whole, to
    /// [`LONGEST_ANSWER`](crate::LONGEST_ANSWER).
    pub fn wants_answer(&self) -> bool {
        self.keep.is_some()
    }

    /// The destination's answer, for whoever is told of it. One that is longer than
    /// [`LONGEST_ANSWER`](crate::LONGEST_ANSWER) is none: half of it may say something else.
    /// Whether it is passed on, or nobody wants it.
    pub fn answered(&self, answer: &[u8]) -> bool {
        self.keep.as_ref().is_none_or(|keep| keep.put(answer))
    }

    /// Begins a request to the destination, as a part of this attempt. Its name is one
    /// of a few, such as `POST`.
    pub fn call(&self, role: Role, name: &'static str) -> Call {
        Call::begin(self.calls.as_deref(), self.trace, role, name)
    }
}

/// What a dispatcher is told when it is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenContext {
    /// The route it is opened for.
    pub route: String,
    /// The folder of the settings file.
    pub folder: PathBuf,
    shared: Shared,
}

impl OpenContext {
    /// For a route of settings in `folder`.
    pub fn new(route: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        Self { route: route.into(), folder: folder.into(), shared: Shared::default() }
    }

    /// The same in a process that shares something with its dispatchers.
    #[must_use]
    pub fn sharing(self, shared: &Shared) -> Self {
        Self { shared: shared.clone(), ..self }
    }

    /// What the process shares with its dispatchers, of this type.
    pub fn shared<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.shared.0.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// A path from the settings: relative ones are relative to their file.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }
}

/// What a process shares with its dispatchers: at most one of each type.
#[derive(Clone, Debug, Default)]
pub struct Shared(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Shared {
    /// Adds it; one of the same type is replaced.
    #[must_use]
    pub fn with<T: Send + Sync + 'static>(mut self, it: T) -> Self {
        self.0.insert(TypeId::of::<T>(), Arc::new(it));
        self
    }
}
