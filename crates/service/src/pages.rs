//! Small pages for machines, each on a listener of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use telemetry::metrics::{self, Scrape};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::Shutdown;

/// Longest life of a connection.
const CONNECTION: Duration = Duration::from_secs(5);

/// Questions answered at once; more are closed unanswered.
const PLACES: usize = 32;

/// Whether this process should be given work: not before it says so, and not after it
/// was told to stop.
#[derive(Clone, Debug)]
pub struct Readiness {
    is_ready: Arc<AtomicBool>,
    not_ready: CancellationToken,
}

impl Readiness {
    /// Not yet, of a process that stops by this.
    pub fn new(shutdown: &Shutdown) -> Self {
        Self { is_ready: Arc::default(), not_ready: shutdown.not_ready() }
    }

    /// Says so.
    pub fn set(&self, ready: bool) {
        self.is_ready.store(ready, Ordering::Release);
        metrics::READY.set(f64::from(u8::from(self.get())), []);
    }

    /// Whether the process was told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.not_ready.is_cancelled()
    }

    /// Whether it was said, and still holds.
    pub fn get(&self) -> bool {
        self.is_ready.load(Ordering::Acquire) && !self.not_ready.is_cancelled()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Page {
    /// `/livez` and `/readyz`: by their status, and no more.
    Health(Readiness),
    /// `/metrics`, for Prometheus.
    Metrics(Scrape),
}

/// A listener with one kind of page.
#[derive(Debug)]
pub(crate) struct Pages {
    listener: TcpListener,
    page: Page,
}

impl Pages {
    /// Listens.
    pub(crate) async fn bind(address: SocketAddr, page: Page) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, page })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the process ends: while draining, somebody must hear so.
    pub(crate) async fn serve(self, shutdown: Shutdown) {
        let places = Arc::new(Semaphore::new(PLACES));
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let page = self.page.clone();
            shutdown.spawn_detached(async move {
                let _ = tokio::time::timeout(CONNECTION, answer(stream, page)).await;
                drop(place);
            });
        }
    }
}

async fn answer(stream: TcpStream, page: Page) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = page.answer(request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(2)).keep_alive(false);
    builder.serve_connection(TokioIo::new(stream), service).await
}

impl Page {
    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        let status = match (self, path) {
            (Self::Health(_), "/livez") => StatusCode::OK,
            (Self::Health(readiness), "/readyz") if readiness.get() => StatusCode::OK,
            (Self::Health(_), "/readyz") => StatusCode::SERVICE_UNAVAILABLE,
            (Self::Metrics(scrape), "/metrics") => return shown(scrape),
            _ => StatusCode::NOT_FOUND,
        };
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = status;
        response
    }
}

fn shown(scrape: &Scrape) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(scrape.text())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    response
}
