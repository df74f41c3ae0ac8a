//! The accept loop.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use futures::FutureExt;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use service::Shutdown;
use telemetry::metrics;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use crate::Bounds;
use crate::connection::Guarded;

/// Sent to a connection beyond the limit.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: 23\r\nretry-after: 2\r\nconnection: close\r\n\r\n{\"error\":\"unavailable\"}";

/// Connections beyond the limit that are told so at once; of more, the system
/// is left to make them wait.
const TURNED_AWAY: usize = 128;

/// How long one that is turned away may take to read that.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long to rest when the system has no more descriptors.
const REST: Duration = Duration::from_millis(50);

/// Accepts connections until the port is to be shut, which is the last thing that a
/// process does; then lets each finish the request it is in, or has yet to send.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    bounds: Bounds,
    shutdown: Shutdown,
) {
    let places = Arc::new(Semaphore::new(bounds.connections));
    let goodbyes = Arc::new(Semaphore::new(TURNED_AWAY));
    let closing = shutdown.closing();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = closing.cancelled() => match last_accepted(&listener, &shutdown) {
                Some(accepted) => Ok(accepted),
                None => return,
            },
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                rest(&error).await;
                continue;
            }
        };
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let serving =
                    Serving { router: router.clone(), bounds: bounds.clone(), shutdown: shutdown.clone() };
                shutdown.spawn_intake(serving.accepted(stream, tls.clone(), place));
            }
            Err(_) => {
                metrics::REFUSED.add(1, ["connections".into()]);
                tracing::warn!(reason = "connections", "connection refused: as many as are allowed are open");
                let Ok(goodbye) = Arc::clone(&goodbyes).acquire_owned().await else { return };
                shutdown.spawn_intake(turn_away(stream, goodbye));
            }
        }
    }
}

/// Shutting the port refuses who has connected and was not accepted yet: they are taken
/// first. A socket that outlives us keeps them for the next process.
fn last_accepted(listener: &TcpListener, shutdown: &Shutdown) -> Option<(TcpStream, SocketAddr)> {
    if shutdown.does_socket_outlive_us() {
        return None;
    }
    listener.accept().now_or_never()?.ok()
}

async fn rest(error: &io::Error) {
    // A peer that went away before it was accepted is nobody's problem.
    if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        tracing::error!(%error, "no connection accepted");
        sleep(REST).await;
    }
}

/// What one connection is served with.
struct Serving {
    router: Router,
    bounds: Bounds,
    shutdown: Shutdown,
}

impl Serving {
    async fn accepted(self, stream: TcpStream, tls: Option<TlsAcceptor>, _place: OwnedSemaphorePermit) {
        // Answers are small and final: nothing is gained by waiting for more.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return serve_one(stream, self).await };
        match timeout(self.bounds.first_byte_within, tls.accept(stream)).await {
            Ok(Ok(stream)) => return serve_one(stream, self).await,
            Ok(Err(error)) => tracing::info!(reason = "tls", %error, "connection refused: no TLS"),
            Err(_) => tracing::info!(reason = "tls", "connection refused: its TLS handshake took too long"),
        }
        metrics::REFUSED.add(1, ["tls".into()]);
    }
}

async fn serve_one<S>(stream: S, serving: Serving)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Serving { router, bounds, shutdown } = serving;
    let (stream, turn) = Guarded::new(stream, &bounds);
    let (answering, stopping) = (turn.clone(), shutdown.clone());
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        answering.next();
        // A stop waits for what had come before it, however slowly it is sent.
        let draining = stopping.draining();
        let begun = (!draining.is_cancelled()).then(|| stopping.working());
        let (turn, router) = (answering.clone(), router.clone());
        async move {
            let mut response = router.oneshot(request.map(axum::body::Body::new)).await?;
            if draining.is_cancelled() {
                // Whoever keeps connections finds another process for the next request.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            turn.next();
            drop(begun);
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(bounds.idle)
        .max_headers(bounds.header_count)
        .max_buf_size(bounds.header_bytes);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let closing = shutdown.closing();
    tokio::select! {
        ended = connection.as_mut() => return log(ended),
        () = closing.cancelled() => {}
    }
    // One whose first request is on its way is answered; its answer closes it.
    if turn.has_begun() {
        connection.as_mut().graceful_shutdown();
    }
    let _ = connection.await;
}

/// Errors of a connection are the peer's. What is not HTTP, or more of it than
/// is allowed, hyper has answered with 400 or 431.
fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended.as_ref()
        && error.is_parse()
    {
        metrics::REFUSED.add(1, ["not-http".into()]);
        tracing::info!(reason = "not-http", %error, "request refused");
    }
}

/// Says 503, and reads what the peer sends meanwhile: closing on unread bytes
/// would reset the connection before the answer is read.
async fn turn_away(mut stream: TcpStream, _goodbye: OwnedSemaphorePermit) {
    let goodbye = async {
        stream.write_all(BUSY).await?;
        stream.shutdown().await?;
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(GOODBYE, goodbye).await;
}
