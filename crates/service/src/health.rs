use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::Shutdown;

/// Longest life of a health check's connection.
const CONNECTION: Duration = Duration::from_secs(5);

/// Checks answered at once; more are closed unanswered.
const PLACES: usize = 32;

/// Whether this process should be given work.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says so.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    /// Whether it was said.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Answers `/livez` and `/readyz` on a listener of its own, and says nothing
/// else. Goes unready first when draining begins.
#[derive(Debug)]
pub struct Health {
    listener: TcpListener,
    readiness: Readiness,
}

impl Health {
    /// Listens.
    pub async fn bind(address: SocketAddr, readiness: Readiness) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, readiness })
    }

    /// Answers until the process ends: while draining, somebody must hear so.
    pub async fn serve(self, shutdown: Shutdown) {
        let draining = shutdown.draining();
        let places = Arc::new(Semaphore::new(PLACES));
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let ready = self.readiness.get() && !draining.is_cancelled();
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            shutdown.spawn_unwaited(async move {
                let _ = tokio::time::timeout(CONNECTION, answer(stream, ready)).await;
                drop(place);
            });
        }
    }
}

async fn answer(stream: TcpStream, ready: bool) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| async move {
        let status = match request.uri().path() {
            "/livez" => StatusCode::OK,
            "/readyz" if ready => StatusCode::OK,
            "/readyz" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::NOT_FOUND,
        };
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = status;
        Ok::<_, Infallible>(response)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(2)).keep_alive(false);
    builder.serve_connection(TokioIo::new(stream), service).await
}
