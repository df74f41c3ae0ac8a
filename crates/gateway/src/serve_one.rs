//! Serves one connection, request by request.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Response, StatusCode};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use process::{ClientNetwork, ConnectionStage, RefusalLog, Shutdown};
use telemetry::metrics;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::Bounds;
use crate::connection::{DeadlineStream, LATE, RequestPhase};
use crate::senders::Peer;

/// Everything that serving one connection needs.
#[derive(Clone)]
pub(crate) struct ConnectionServer {
    pub(crate) router: Router,
    pub(crate) bounds: Bounds,
    pub(crate) shutdown: Shutdown,
    pub(crate) refusals: RefusalLog,
    /// Permits to answer a last request after the connection's permit went to another.
    pub(crate) goodbyes: Arc<Semaphore>,
    pub(crate) peer: Peer,
}

/// Answers requests on this connection until it ends, or until its permit goes to another.
pub(crate) async fn serve_one<S>(stream: S, serving: ConnectionServer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stream, turn) = DeadlineStream::new(stream, &serving.bounds);
    let answering = (serving.clone(), turn.clone());
    let service = service_fn(move |request| {
        let (serving, turn) = answering.clone();
        serving.answer(request, turn)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(serving.bounds.idle)
        .max_headers(serving.bounds.header_count)
        .max_buf_size(serving.bounds.header_bytes)
        // Some clients close their half once they have sent the request, and still expect an
        // answer.
        .half_close(true);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let closing = serving.shutdown.closing();
    let mut _goodbye = None;
    tokio::select! {
        ended = connection.as_mut() => return serving.log(ended, &turn),
        () = serving.peer.place.evicted().cancelled() => {
            // A request in progress is answered, and that closes the connection.
            let goodbye = turn.is_answering().then(|| Arc::clone(&serving.goodbyes).try_acquire_owned());
            let Some(Ok(goodbye)) = goodbye else { return };
            _goodbye = Some(goodbye);
        }
        () = closing.cancelled() => {}
    }
    // A first request that is still arriving is answered, and its answer closes the connection.
    if turn.has_begun() {
        connection.as_mut().graceful_shutdown();
    }
    let _ = connection.await;
}

impl ConnectionServer {
    /// True if this refusal of this peer has a line in the log.
    fn has_line(&self, reason: &'static str) -> bool {
        self.refusals
            .admit_line(reason, ClientNetwork::from(self.peer.address))
    }

    /// Logs the end of a connection. Its errors are the peer's: hyper has answered 400 or 431 to
    /// bytes that are not HTTP, or to more of them than is allowed.
    fn log(&self, ended: hyper::Result<()>, turn: &RequestPhase) {
        const REASON: &str = "not-http";
        let client = self.peer.address;
        if turn.is_late() && self.has_line(LATE) {
            tracing::info!(reason = LATE, %client, "request refused: its headers took too long");
        }
        let Err(error) = ended else { return };
        if !error.is_parse() {
            return;
        }
        metrics::REFUSED.add(1, [REASON.into()]);
        if self.has_line(REASON) {
            let why = turn.why_ambiguous();
            tracing::info!(reason = REASON, %client, %error, why, "request refused");
        }
    }
}

impl ConnectionServer {
    async fn answer(
        self,
        mut request: Request<Incoming>,
        turn: RequestPhase,
    ) -> Result<Response<Body>, Infallible> {
        turn.next();
        self.peer.place.enter(ConnectionStage::Receiving);
        // A stop waits for requests that came before it, however slowly they are sent.
        let draining = self.shutdown.draining();
        let begun = (!draining.is_cancelled()).then(|| self.shutdown.track());
        request.extensions_mut().insert(self.peer.clone());
        let mut response = self.router.oneshot(request.map(Body::new)).await?;
        // A refused client has no claim to a permit. A proxy's connection has others' requests.
        let is_refused = response.status() != StatusCode::OK && !self.peer.is_trusted;
        // While draining, a client that pools connections finds another process for its next
        // request.
        if is_refused || draining.is_cancelled() {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.peer.place.enter(ConnectionStage::Waiting);
        turn.next();
        drop(begun);
        Ok(response)
    }
}
