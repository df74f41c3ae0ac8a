//! The context of an attempt, and that of opening a dispatcher.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use event_model::{ExactJson, Timestamp, TraceParent, TraceState};
use tokio_util::sync::CancellationToken;

use crate::outcome::{DeliveryOutcome, ResponseCapture};
use crate::tracing_call::{CallSpan, CallTracer, Role};

/// Facts about the attempt that a dispatcher is making.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Context {
    /// The route that the event took.
    pub route: String,
    /// Name of the delivery; differs from the event's id after a redrive.
    pub delivery_id: String,
    /// Key that is the same for every attempt and redrive of an event: a destination should
    /// remember that it has handled it.
    pub idempotency_key: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When this attempt began.
    pub started_at: Timestamp,
    /// Longest time for this attempt; it is dropped after that.
    pub timeout: Duration,
    /// The attempt's span in the event's trace. Requests to the destination carry the trace of
    /// [`Context::call`] instead.
    pub trace: Option<TraceParent>,
    /// State that tracing systems want to have carried with the trace: W3C's `tracestate`. A
    /// request carries it beside the `traceparent` from [`Context::call`].
    pub trace_state: Option<TraceState>,
    /// Answer of Fluent's API to what the route asks about the event: its `data`, with every
    /// number as Fluent wrote it.
    pub enriched: Option<ExactJson>,
    /// Outcome of another delivery, if this dispatcher is notified of one (`on-success`,
    /// `on-dead-letter`).
    pub outcome: Option<Arc<DeliveryOutcome>>,
    /// Holder for the destination's answer, if a hook is notified of it.
    pub response: Option<ResponseCapture>,
    /// Records the requests that are made.
    pub tracer: Option<Arc<dyn CallTracer>>,
    /// Fires when the service can wait no longer; end the attempt promptly.
    pub cancellation: CancellationToken,
}

impl Context {
    /// Makes the context of a first attempt of `idempotency_key` on `route`, begun in 1970. Set
    /// the fields for anything else.
    pub fn new(
        route: impl Into<String>,
        idempotency_key: impl Into<String>,
        timeout: Duration,
    ) -> Self {
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
            outcome: None,
            response: None,
            tracer: None,
            cancellation: CancellationToken::new(),
        }
    }

    /// Whether a hook is notified of the destination's answer: then read the whole of it, up to
    /// [`LONGEST_ANSWER`](crate::LONGEST_ANSWER).
    pub fn wants_answer(&self) -> bool {
        self.response.is_some()
    }

    /// Hands on the destination's answer to the hook that is notified. One longer than
    /// [`LONGEST_ANSWER`](crate::LONGEST_ANSWER) is dropped, since half of it may say something
    /// else; only then returns `false`.
    pub fn answered(&self, answer: &[u8]) -> bool {
        self.response.as_ref().is_none_or(|keep| keep.put(answer))
    }

    /// Begins a request to the destination, as a part of this attempt. Its name is one of a few,
    /// such as `POST`.
    pub fn call(&self, role: Role, name: &'static str) -> CallSpan {
        CallSpan::begin(self.tracer.as_deref(), self.trace, role, name)
    }
}

/// Facts for opening a dispatcher.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OpenContext {
    /// Name of the route for which it is opened.
    pub route: String,
    /// Folder of the settings file.
    pub folder: PathBuf,
    shared: Extensions,
}

impl OpenContext {
    /// Makes the context of a route whose settings are in `folder`.
    pub fn new(route: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        Self {
            route: route.into(),
            folder: folder.into(),
            shared: Extensions::default(),
        }
    }

    /// Adds what the process shares among its dispatchers.
    #[must_use]
    pub fn with_extensions(self, shared: &Extensions) -> Self {
        Self {
            shared: shared.clone(),
            ..self
        }
    }

    /// Returns the shared value of this type, if the process has one.
    pub fn extension<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.shared.0.get(&TypeId::of::<T>())?.downcast_ref()
    }

    /// Resolves a path from the settings: relative ones are relative to their file.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }
}

/// Values that a process shares among its dispatchers: at most one of each type.
#[derive(Clone, Debug, Default)]
pub struct Extensions(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl Extensions {
    /// Adds a value; one of the same type is replaced.
    #[must_use]
    pub fn with<T: Send + Sync + 'static>(mut self, it: T) -> Self {
        self.0.insert(TypeId::of::<T>(), Arc::new(it));
        self
    }
}
