//! One webhook, from its headers to its answer.

use std::future::pending;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::State;
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, Method, Request, Response};
use event_model::{
    AdmissionError, Algorithm, Event, Evidence, Headers, Inbound, Malformed, TraceParent, Verified,
};
use percent_encoding::percent_decode_str;
use queue::{Quarantined, QueueError, Receipt};
use settings::OnMalformed;
use telemetry::{Attribute, ErrorChain, Kind, Span, SpanStatus, metrics};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use verifier::{MAX_BITS, SignatureError};

use crate::body::read_body;
use crate::byte_budget::ByteBudget;
use crate::request_telemetry::{self, RequestTelemetry};
use crate::response::{ReceiveError, accepted, quarantined};
use crate::same_ids::SameIds;
use crate::senders::{Client, Peer, Senders};
use crate::{Bounds, Ports, quarantine};

/// Longest header value that can be a signature, in any encoding: four letters for each byte of a
/// signature by the longest key.
const MAX_SIGNATURE: usize = MAX_BITS / 8 * 4;

/// Largest body that is verified on the threads that answer. Larger ones go to other threads:
/// hashing 2 MB twice takes milliseconds, and Fluent's bodies have some kB.
const LARGE: usize = 128 << 10;

/// Wait before the next try after the queue could not store.
const TRY_AGAIN: Duration = Duration::from_millis(200);

/// The state that all requests share.
#[derive(Debug)]
pub(crate) struct ReceiveState {
    ports: Ports,
    bounds: Bounds,
    budget: ByteBudget,
    /// Permits to verify large bodies at once: half of the processors.
    large: Semaphore,
    same_ids: SameIds,
}

impl ReceiveState {
    pub(crate) fn new(ports: Ports, bounds: &Bounds) -> Self {
        let budget = ByteBudget::new(bounds.bodies, ports.senders.proven.clone());
        let processors = available_parallelism().map_or(1, NonZero::get);
        let large = Semaphore::new((processors / 2).max(1));
        Self {
            ports,
            bounds: bounds.clone(),
            budget,
            large,
            same_ids: SameIds::default(),
        }
    }
}

/// Answers one request. Every refusal is in the log with its reason, by a line of its own or
/// counted.
pub(crate) async fn receive(
    State(receiving): State<Arc<ReceiveState>>,
    request: Request<Body>,
) -> Response<Body> {
    let watch = RequestTelemetry::begin(request.method(), request.headers());
    let peer = request.extensions().get::<Peer>().cloned();
    let client = peer
        .as_ref()
        .map(|peer| peer.client(request.headers(), &receiving.ports.senders));
    let client = client.unwrap_or_default();
    let has_body = !request.body().is_end_stream();
    let answer = receiving
        .receive(request, peer.as_ref(), client, &watch)
        .await;
    let reason = answer.as_ref().err().map(ReceiveError::reason);
    let response = answer.unwrap_or_else(|refused| {
        receiving.log(&refused, client, watch.trace());
        refused.response(has_body)
    });
    watch.answered(response.status(), reason);
    response
}

impl ReceiveState {
    fn log(&self, refused: &ReceiveError, client: Client, trace: TraceParent) {
        let Senders {
            proven, refusals, ..
        } = &self.ports.senders;
        let reason = refused.reason();
        let trace_id = trace.trace_id();
        let error = ErrorChain(refused);
        if (refused.is_signature_error() || refused.is_overload())
            && proven.has_known(client.source)
        {
            metrics::REFUSED_KNOWN_CLIENT.add(1, [reason.into()]);
        }
        let is_written = match refused.is_genuine() {
            true => refusals.has_room_for_genuine(),
            false => refusals.admit_line(reason, client.source),
        };
        if !is_written {
            return;
        }
        // With the address in the log, a client that is refused again and again can be blocked.
        let client = client.address;
        match refused {
            ReceiveError::NotDurable(_) | ReceiveError::NotDurableInTime(_) => {
                tracing::error!(reason, trace_id, %client, %error, "webhook not accepted; the sender has it for a few seconds more");
            }
            ReceiveError::Rejected(_)
            | ReceiveError::Unsigned(_)
            | ReceiveError::NotAdmitted(_)
            | ReceiveError::Malformed(_)
            | ReceiveError::Busy
            | ReceiveError::OverShare => {
                tracing::warn!(reason, trace_id, %client, %error, "webhook refused");
            }
            _ => tracing::info!(reason, trace_id, %client, %error, "request refused"),
        }
    }

    async fn receive(
        &self,
        request: Request<Body>,
        peer: Option<&Peer>,
        client: Client,
        watch: &RequestTelemetry,
    ) -> Result<Response<Body>, ReceiveError> {
        self.check_head(&request)?;
        let headers = self.signature_headers(request.headers());
        check_signatures(&headers)?;
        let state = request_telemetry::carried(request.headers(), watch.trace());
        let held = self.budget.begin(client.source);
        let place = peer.map(|peer| &peer.place);
        if let Some(place) = place {
            place.receive_from(client.source);
        }
        let body = read_body(request.into_body(), &held, place, &self.bounds).await?;
        let inbound = Inbound {
            body,
            headers,
            received_at: self.ports.clock.now(),
        };
        let verified = self.verify(inbound, watch).await?;
        let publishing = watch.part(Kind::Producer, "publish fluent.events");
        match Event::admit(verified, &self.ports.accounts, Some(publishing.context())) {
            Ok(event) => {
                self.publish(event.with_trace_state(state), client, publishing)
                    .await
            }
            Err((refusal, verified)) => {
                publishing.discard();
                self.not_admitted(refusal, verified, watch.trace()).await
            }
        }
    }

    async fn not_admitted(
        &self,
        refusal: AdmissionError,
        verified: Verified<Inbound>,
        trace: TraceParent,
    ) -> Result<Response<Body>, ReceiveError> {
        match refusal {
            AdmissionError::Malformed(malformed) => self.keep(malformed, verified, trace).await,
            _ => {
                let refused = ReceiveError::from(refusal);
                let (inbound, evidence) = verified.into_parts();
                let environment = evidence.key.environment();
                self.ports.refused.note(
                    &inbound.body,
                    environment,
                    refused.reason(),
                    inbound.received_at,
                );
                // Whether the account is known, and the body may be kept, is decided there.
                self.ports.rejected.capture(inbound, refused.reason(), true);
                Err(refused)
            }
        }
    }

    async fn verify(
        &self,
        inbound: Inbound,
        watch: &RequestTelemetry,
    ) -> Result<Verified<Inbound>, ReceiveError> {
        let span = watch.part(Kind::Internal, "verify");
        let body = inbound.body.clone();
        let headers = inbound.headers.clone();
        let verified = match body.len() > LARGE {
            true => self.verify_large(inbound).await,
            false => self.ports.verifier.verify(inbound),
        };
        match verified {
            Ok(verified) => {
                request_telemetry::verified(span, verified.evidence(), self.ports.clock.now());
                Ok(verified)
            }
            Err(rejection) => {
                span.end(SpanStatus::Ok, || {
                    vec![Attribute::new("fluent.refused", rejection.code())]
                });
                let received_at = self.ports.clock.now();
                Err(self.held(
                    Inbound {
                        body,
                        headers,
                        received_at,
                    },
                    rejection.into(),
                ))
            }
        }
    }

    /// Verifies a large body away from the threads that answer, and not on all processors at
    /// once.
    async fn verify_large(&self, inbound: Inbound) -> Result<Verified<Inbound>, SignatureError> {
        // This semaphore is never closed.
        let _turn = self.large.acquire().await;
        let verifier = Arc::clone(&self.ports.verifier);
        match spawn_blocking(move || verifier.verify(inbound)).await {
            Ok(verified) => verified,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and everything with it.
                Err(_) => pending().await,
            },
        }
    }

    /// Captures a rejected webhook, since its key may only be missing, and returns the refusal.
    fn held(&self, inbound: Inbound, refused: ReceiveError) -> ReceiveError {
        self.ports
            .rejected
            .capture(inbound, refused.reason(), false);
        refused
    }

    /// Checks everything that can be checked before the body is read.
    fn check_head(&self, request: &Request<Body>) -> Result<(), ReceiveError> {
        if !is_same_path(request.uri().path(), &self.ports.path) {
            return Err(ReceiveError::Path);
        }
        if request.method() != Method::POST {
            return Err(ReceiveError::Method);
        }
        let encodings = request.headers().get_all(CONTENT_ENCODING).iter();
        if !encodings
            .flat_map(|list| list.as_bytes().split(|byte| *byte == b','))
            .all(is_identity)
        {
            return Err(ReceiveError::Encoding);
        }
        match request.body().size_hint().lower() > self.bounds.body as u64 {
            true => Err(ReceiveError::TooLarge),
            false => Ok(()),
        }
    }

    fn signature_headers(&self, headers: &HeaderMap) -> Headers {
        let names = self.ports.signature_headers.iter();
        names
            .flat_map(|name| {
                headers
                    .get_all(name.as_str())
                    .iter()
                    .map(move |value| (name.clone(), value.as_bytes()))
            })
            .collect()
    }

    async fn publish(
        &self,
        event: Event,
        client: Client,
        span: Span,
    ) -> Result<Response<Body>, ReceiveError> {
        let id = event.id();
        let trace = span.context();
        let began = Instant::now();
        let published = self
            .within_time(|| self.ports.intake.publish(event.clone()))
            .await;
        request_telemetry::published(span, &event, published.as_ref(), began.elapsed());
        let Receipt {
            duplicate,
            position,
            ..
        } = published?;
        // Only a new event of an account here proves its sender: whoever has a copy of a webhook
        // can send it again, and all accounts of a region share a key.
        if !duplicate {
            self.ports.senders.proven.note(client.source);
            self.ports.senders.main.note(client.address);
        }
        self.ports.seen.note(&event);
        if self.same_ids.is_another(&event) && !duplicate {
            metrics::SAME_ID.add(1, request_telemetry::account_labels(&event));
        }
        tracing::debug!(event.id = %id, event.name = event.name(), %position, duplicate, trace_id = trace.trace_id(), "accepted");
        Ok(accepted(id, duplicate, trace))
    }

    async fn keep(
        &self,
        malformed: Malformed,
        verified: Verified<Inbound>,
        trace: TraceParent,
    ) -> Result<Response<Body>, ReceiveError> {
        if self.ports.malformed == OnMalformed::Refuse {
            return Err(ReceiveError::Malformed(malformed));
        }
        let (inbound, evidence) = verified.into_parts();
        let headers = inbound.headers.clone();
        let body = to_keep(malformed, inbound, evidence);
        self.within_time(|| quarantine::keep(&self.ports, &body, &headers, trace))
            .await?;
        metrics::QUARANTINED.add(1, [malformed.code().into()]);
        if self.ports.senders.refusals.has_room_for_genuine() {
            tracing::warn!(reason = malformed.code(), error = %malformed, trace_id = trace.trace_id(), "genuine but malformed: kept in quarantine");
        }
        Ok(quarantined())
    }

    /// Tries to make something durable until that is decided or the time is over.
    async fn within_time<T, F>(&self, mut try_once: impl FnMut() -> F) -> Result<T, ReceiveError>
    where
        F: Future<Output = Result<T, QueueError>>,
    {
        let mut last = None;
        let trying = async {
            loop {
                match try_once().await {
                    Err(error @ (QueueError::Full | QueueError::Unavailable { .. })) => {
                        last = Some(error);
                        sleep(TRY_AGAIN).await
                    }
                    decided => return decided,
                }
            }
        };
        match timeout(self.bounds.durable_within, trying).await {
            Ok(decided) => decided.map_err(ReceiveError::NotDurable),
            Err(_) => Err(ReceiveError::NotDurableInTime(last)),
        }
    }
}

/// True if both are the same path: `ö`, `%C3%B6` and `%c3%b6` are (RFC 3986, 6.2.2).
fn is_same_path(asked: &str, own: &str) -> bool {
    asked == own || percent_decode_str(asked).eq(percent_decode_str(own))
}

/// True for `identity`, and for an empty element of the list, which means nothing (RFC 9110,
/// 8.4).
fn is_identity(encoding: &[u8]) -> bool {
    let encoding = encoding.trim_ascii();
    encoding.is_empty() || encoding.eq_ignore_ascii_case(b"identity")
}

/// Refuses, before the body is read, a request that can't be genuine. If a header may be a
/// signature that was written wrongly, the body is read, rejected and kept for a person.
fn check_signatures(headers: &Headers) -> Result<(), ReceiveError> {
    let mut lengths = headers.iter().map(|(_, value)| value.len()).peekable();
    if lengths.peek().is_none() {
        return Err(ReceiveError::Unsigned(SignatureError::Missing));
    }
    match lengths.any(|length| (1..=MAX_SIGNATURE).contains(&length)) {
        true => Ok(()),
        false => Err(ReceiveError::Unsigned(SignatureError::Malformed(
            Algorithm::Sha512,
        ))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_same_however_it_is_encoded() {
        for asked in [
            "/hooks/gr%C3%B6%C3%9Fe",
            "/hooks/gr%c3%b6%c3%9fe",
            "/hooks/größe",
            "/h%6Foks/größe",
        ] {
            assert!(is_same_path(asked, "/hooks/größe"), "{asked}");
            assert!(is_same_path(asked, "/hooks/gr%c3%b6%C3%9Fe"), "{asked}");
        }
        for asked in [
            "/hooks/gr%C3%B6%C3%9FE",
            "/hooks/groesse",
            "/hooks/",
            "/hooks/gr%C3%B6%C3%9Fe/",
            "/hooks/gr%25C3%25B6",
        ] {
            assert!(!is_same_path(asked, "/hooks/größe"), "{asked}");
        }
    }
}
