//! One webhook, from its headers to its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, Method, Request, Response};
use bytes::{Bytes, BytesMut};
use event_model::{Event, Evidence, Headers, Inbound, Malformed, Refusal, TraceParent, Verified};
use http_body_util::BodyExt;
use queue::{Quarantined, QueueError, Receipt};
use settings::OnMalformed;
use telemetry::{Attribute, Chain, Ended, Kind, Span, metrics};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{sleep, timeout};
use verifier::Rejection;

use crate::answer::{Refused, accepted, quarantined};
use crate::watch::{self, Watch};
use crate::{Bounds, Ports, quarantine};

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

/// Answers one request. Every refusal has a line in the log, with its reason.
pub(crate) async fn receive(
    State(receiving): State<Arc<Receiving>>,
    request: Request<Body>,
) -> Response<Body> {
    let watch = Watch::begin(request.method(), request.headers());
    let answer = receiving.receive(request, &watch).await;
    let reason = answer.as_ref().err().map(Refused::reason);
    let response = answer.unwrap_or_else(|refused| {
        log(&refused, watch.trace());
        refused.response()
    });
    watch.answered(response.status(), reason);
    response
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
    async fn receive(&self, request: Request<Body>, watch: &Watch) -> Result<Response<Body>, Refused> {
        self.check_head(&request)?;
        let headers = self.signature_headers(request.headers());
        let (body, _held) = self.read(request.into_body()).await?;
        let inbound = Inbound { body, headers, received_at: self.ports.clock.now() };
        let verified = self.verify(inbound, watch)?;
        let publishing = watch.part(Kind::Producer, "publish fluent.events");
        match Event::admit(verified, &self.ports.accounts, Some(publishing.context())) {
            Ok(event) => self.publish(event, publishing).await,
            Err((refusal, verified)) => {
                publishing.forget();
                self.not_admitted(refusal, verified, watch.trace()).await
            }
        }
    }

    async fn not_admitted(
        &self,
        refusal: Refusal,
        verified: Verified<Inbound>,
        trace: TraceParent,
    ) -> Result<Response<Body>, Refused> {
        match refusal {
            Refusal::Malformed(malformed) => self.keep(malformed, verified, trace).await,
            _ => {
                let refused = Refused::from(refusal);
                let (inbound, evidence) = verified.into_parts();
                let environment = evidence.key.environment();
                self.ports.refused.note(&inbound.body, environment, refused.reason(), inbound.received_at);
                // What is a stranger's is kept nowhere: that is decided there.
                self.ports.holding.hold(inbound, refused.reason(), true);
                Err(refused)
            }
        }
    }

    fn verify(&self, inbound: Inbound, watch: &Watch) -> Result<Verified<Inbound>, Refused> {
        let span = watch.part(Kind::Internal, "verify");
        let (body, headers) = (inbound.body.clone(), inbound.headers.clone());
        match self.ports.verifier.verify(inbound) {
            Ok(verified) => {
                watch::verified(span, verified.evidence(), self.ports.clock.now());
                Ok(verified)
            }
            Err(rejection) => {
                span.end(Ended::Well, || vec![Attribute::new("fluent.refused", rejection.code())]);
                // Without a signature it will never verify.
                if rejection == Rejection::Missing {
                    return Err(rejection.into());
                }
                let received_at = self.ports.clock.now();
                Err(self.held(Inbound { body, headers, received_at }, rejection.into()))
            }
        }
    }

    /// Refused, perhaps wrongly: a person can look at it.
    fn held(&self, inbound: Inbound, refused: Refused) -> Refused {
        self.ports.holding.hold(inbound, refused.reason(), false);
        refused
    }

    /// What can be refused before the body is read.
    fn check_head(&self, request: &Request<Body>) -> Result<(), Refused> {
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
        if request.body().size_hint().lower() > self.bounds.body as u64 {
            return Err(Refused::TooLarge);
        }
        if self.budget.available_permits() == 0 { Err(Refused::Busy) } else { Ok(()) }
    }

    fn signature_headers(&self, headers: &HeaderMap) -> Headers {
        let names = self.ports.signature_headers.iter();
        names
            .flat_map(|name| {
                headers.get_all(name.as_str()).iter().map(move |value| (name.clone(), value.as_bytes()))
            })
            .collect()
    }

    /// Reads the body, within its time. The bytes are counted against the budget
    /// as they arrive, not as they are announced: an announcement costs nothing.
    async fn read(&self, body: Body) -> Result<(Bytes, SemaphorePermit<'_>), Refused> {
        timeout(self.bounds.body_within, self.collect(body)).await.unwrap_or(Err(Refused::TooSlow))
    }

    async fn collect(&self, mut body: Body) -> Result<(Bytes, SemaphorePermit<'_>), Refused> {
        let (mut whole, mut held) = (BytesMut::new(), self.hold(0)?);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Refused::Broken)?.into_data() else { continue };
            let length = whole.len() + data.len();
            if length > self.bounds.body {
                return Err(Refused::TooLarge);
            }
            // By its length so far: pieces of a byte cost no more than the whole.
            held.merge(self.hold(length.div_ceil(STEP) - held.num_permits())?);
            if whole.is_empty() && body.is_end_stream() {
                // The usual case: all in one piece, which needs no copy.
                return Ok((data, held));
            }
            whole.extend_from_slice(&data);
        }
        Ok((whole.freeze(), held))
    }

    /// Sets steps aside of the budget while the request is being handled.
    fn hold(&self, steps: usize) -> Result<SemaphorePermit<'_>, Refused> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.budget.try_acquire_many(steps).map_err(|_| Refused::Busy)
    }

    async fn publish(&self, event: Event, span: Span) -> Result<Response<Body>, Refused> {
        let (id, trace, began) = (event.id(), span.context(), Instant::now());
        let published = self.within_time(|| self.ports.queue.publish(event.clone())).await;
        watch::published(span, &event, published.as_ref(), began.elapsed());
        let Receipt { duplicate, position, .. } = published?;
        self.ports.seen.note(&event);
        tracing::debug!(event.id = %id, event.name = event.name(), %position, duplicate, trace_id = trace.trace_id(), "accepted");
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
        let headers = inbound.headers.clone();
        let body = to_keep(malformed, inbound, evidence);
        self.within_time(|| quarantine::keep(&self.ports, &body, &headers)).await?;
        metrics::QUARANTINED.add(1, [malformed.code().into()]);
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
        proof: evidence.proof,
        key: (*evidence.key).clone(),
        signature: evidence.signature,
        received_at: inbound.received_at,
        reason: malformed.to_string(),
    }
}
