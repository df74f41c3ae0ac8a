//! One webhook, from its headers to its answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, Method, Request, Response};
use bytes::Bytes;
use event_model::{Event, Evidence, Headers, Inbound, Malformed, Refusal, TraceParent, Verified};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use queue::{Quarantined, QueueError, Receipt};
use settings::OnMalformed;
use telemetry::Chain;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};

use crate::answer::{Refused, accepted, quarantined};
use crate::{Bounds, Ports};

/// The byte budget is counted in steps of this size.
const STEP: usize = 1024;

/// How soon to try again what the queue would not take.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Receiving {
    ports: Ports,
    bounds: Bounds,
    budget: Semaphore,
}

impl Receiving {
    pub(crate) fn new(ports: Ports, bounds: &Bounds) -> Self {
        let budget = Semaphore::new(bounds.bodies / STEP);
        Self { ports, bounds: bounds.clone(), budget }
    }
}

/// Answers one request. Every refusal is counted by its reason in the log.
pub(crate) async fn receive(
    State(receiving): State<Arc<Receiving>>,
    request: Request<Body>,
) -> Response<Body> {
    let trace = telemetry::begin_trace();
    match receiving.receive(request, trace).await {
        Ok(response) => response,
        Err(refused) => {
            log(&refused, trace);
            refused.response()
        }
    }
}

fn log(refused: &Refused, trace: TraceParent) {
    let (reason, trace_id, error) = (refused.reason(), trace.trace_id(), Chain(refused));
    match refused {
        Refused::NotDurable(_) | Refused::NotDurableInTime => {
            tracing::error!(reason, trace_id, %error, "webhook not accepted; the sender has it for a few seconds more");
        }
        Refused::Rejected(_) | Refused::NotAdmitted(_) | Refused::Malformed(_) | Refused::Busy => {
            tracing::warn!(reason, trace_id, %error, "webhook refused");
        }
        _ => tracing::info!(reason, trace_id, %error, "request refused"),
    }
}

impl Receiving {
    async fn receive(&self, request: Request<Body>, trace: TraceParent) -> Result<Response<Body>, Refused> {
        let length = self.check_head(&request)?;
        let _held = self.hold(length)?;
        let headers = self.signature_headers(request.headers());
        let body = self.read(request.into_body()).await?;
        let inbound = Inbound { body, headers, received_at: self.ports.clock.now() };
        let verified = self.ports.verifier.verify(inbound)?;
        match Event::admit(verified, &self.ports.accounts, Some(trace)) {
            Ok(event) => self.publish(event, trace).await,
            Err((Refusal::Malformed(malformed), verified)) => self.keep(malformed, verified, trace).await,
            Err((refusal, _)) => Err(refusal.into()),
        }
    }

    /// What can be refused before the body is read. Answers its length.
    fn check_head(&self, request: &Request<Body>) -> Result<usize, Refused> {
        if request.uri().path() != &*self.ports.path {
            return Err(Refused::Path);
        }
        if request.method() != Method::POST {
            return Err(Refused::Method);
        }
        let encodings = request.headers().get_all(CONTENT_ENCODING);
        if encodings.iter().any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Refused::Encoding);
        }
        let length = match request.headers().get(CONTENT_LENGTH) {
            // hyper has refused what is not a number.
            Some(_) => request.body().size_hint().exact().unwrap_or(u64::MAX),
            None => self.bounds.body as u64,
        };
        usize::try_from(length).ok().filter(|length| *length <= self.bounds.body).ok_or(Refused::TooLarge)
    }

    /// Sets the body's bytes aside of the budget, while it is being handled.
    fn hold(&self, length: usize) -> Result<SemaphorePermit<'_>, Refused> {
        let steps = u32::try_from(length.div_ceil(STEP)).unwrap_or(u32::MAX);
        self.budget.try_acquire_many(steps).map_err(|_| Refused::Busy)
    }

    fn signature_headers(&self, headers: &HeaderMap) -> Headers {
        let names = self.ports.signature_headers.iter();
        names
            .flat_map(|name| {
                headers.get_all(name.as_str()).iter().map(move |value| (name.clone(), value.as_bytes()))
            })
            .collect()
    }

    async fn read(&self, body: Body) -> Result<Bytes, Refused> {
        let limited = Limited::new(body, self.bounds.body);
        match timeout(self.bounds.body_within, limited.collect()).await {
            Err(_) => Err(Refused::TooSlow),
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refused::TooLarge),
            Ok(Err(_)) => Err(Refused::Broken),
        }
    }

    async fn publish(&self, event: Event, trace: TraceParent) -> Result<Response<Body>, Refused> {
        let id = event.id();
        let receipt = self.within_time(|| self.ports.queue.publish(event.clone())).await?;
        let Receipt { duplicate, position, .. } = receipt;
        tracing::debug!(event.id = %id, event.name = event.name(), position, duplicate, trace_id = trace.trace_id(), "accepted");
        Ok(accepted(id, duplicate, trace))
    }

    async fn keep(
        &self,
        malformed: Malformed,
        verified: Verified<Inbound>,
        trace: TraceParent,
    ) -> Result<Response<Body>, Refused> {
        if self.ports.malformed == OnMalformed::Refuse {
            return Err(Refused::Malformed(malformed));
        }
        let (inbound, evidence) = verified.into_parts();
        let body = to_keep(malformed, inbound, evidence);
        self.within_time(|| self.ports.queue.stores().quarantine().keep(body.clone())).await?;
        tracing::warn!(reason = malformed.code(), error = %malformed, trace_id = trace.trace_id(), "genuine but malformed: kept in quarantine");
        Ok(quarantined())
    }

    /// Tries to make something durable until it is, or it is too late.
    async fn within_time<T, F>(&self, mut try_once: impl FnMut() -> F) -> Result<T, Refused>
    where
        F: Future<Output = Result<T, QueueError>>,
    {
        let trying = async {
            loop {
                match try_once().await {
                    Err(QueueError::Full | QueueError::Unavailable { .. }) => sleep(TRY_AGAIN).await,
                    decided => return decided,
                }
            }
        };
        match timeout(self.bounds.durable_within, trying).await {
            Ok(decided) => decided.map_err(Refused::NotDurable),
            Err(_) => Err(Refused::NotDurableInTime),
        }
    }
}

fn to_keep(malformed: Malformed, inbound: Inbound, evidence: Evidence) -> Quarantined {
    Quarantined {
        id: 0,
        body: inbound.body,
        algorithm: evidence.algorithm,
        key: (*evidence.key).clone(),
        signature: evidence.signature,
        received_at: inbound.received_at,
        reason: malformed.to_string(),
    }
}
