//! Small pages for machines, each on a listener of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use queue::Impediment;
use telemetry::metrics::{self, Scrape};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::{
    ClientNetwork, ConnectionPermit, ConnectionPermits, ConnectionStage, ProcessLimits,
    ProvenSources, Shutdown,
};

/// Longest life of a connection.
const CONNECTION: Duration = Duration::from_secs(5);

/// Longest time for a request to arrive: those who ask are machines, and near.
const ASKED_WITHIN: Duration = Duration::from_secs(1);

/// Most connections at once. Beyond it, the one that has been silent for the longest time gives
/// way: a new question needs an answer, or a working process is taken for a dead one.
const PLACES: usize = 256;

/// The part of the descriptors beside webhooks' that each listener may take: the limits of this
/// process may allow fewer connections.
const EIGHTHS: u64 = 1;

/// Why a process that was told to stop is not ready.
pub const STOPPING: &str = "it was told to stop";

/// Pause when no connection can be accepted, as all descriptors are in use.
const REST: Duration = Duration::from_millis(100);

/// The readiness of this process for work: not before it is set, and not after the process was
/// told to stop.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// `None` once the process is ready.
    impediment: Arc<Mutex<Option<Impediment>>>,
    not_ready: CancellationToken,
}

impl Readiness {
    /// Starts as not ready. `shutdown` ends the readiness.
    pub fn new(shutdown: &Shutdown) -> Self {
        Self {
            impediment: Arc::new(Mutex::new(Some("it is starting".into()))),
            not_ready: shutdown.not_ready(),
        }
    }

    /// Sets whether the process is ready: it is without an impediment.
    pub fn set(&self, impediment: Option<Impediment>) {
        *self.lock() = impediment;
        metrics::READY.set(f64::from(u8::from(self.get())), []);
    }

    /// True if the process was told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.not_ready.is_cancelled()
    }

    /// True if the process was set ready and was not told to stop.
    pub fn get(&self) -> bool {
        self.impediment().is_none()
    }

    /// Why the process is not ready, in words for people; `None` if it is.
    pub fn impediment(&self) -> Option<Impediment> {
        match self.is_stopping() {
            true => Some(STOPPING.into()),
            false => self.lock().clone(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Impediment>> {
        self.impediment
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pages of one listener.
#[derive(Clone, Debug)]
pub(crate) enum Page {
    /// `/livez` and `/readyz`: a status, and a line that says why.
    Health(Readiness),
    /// `/metrics`, for Prometheus.
    Metrics(Scrape),
}

/// A listener with one kind of page.
#[derive(Debug)]
pub(crate) struct Pages {
    listener: TcpListener,
    page: Page,
    times: Times,
    places: usize,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
struct Times {
    connection: Duration,
    asked_within: Duration,
}

impl Pages {
    /// Binds the address, for as many connections as these limits allow.
    pub(crate) fn bind(
        address: SocketAddr,
        page: Page,
        limits: ProcessLimits,
    ) -> std::io::Result<Self> {
        let times = Times {
            connection: CONNECTION,
            asked_within: ASKED_WITHIN,
        };
        Ok(Self {
            listener: crate::listen(address)?,
            page,
            times,
            places: limits.connections_beside(PLACES, EIGHTHS),
        })
    }

    /// The address that the listener is bound to.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the process ends, so that it can answer "not ready" while it drains.
    pub(crate) async fn serve(self, shutdown: Shutdown) {
        let places = ConnectionPermits::new(self.places, 0, ProvenSources::default());
        loop {
            places.until_open().await;
            let Ok((stream, address)) = self.listener.accept().await else {
                tokio::time::sleep(REST).await;
                continue;
            };
            // Nobody can give way while all are being answered, which takes no time.
            let Ok(place) = places.take(ClientNetwork::from(address.ip()), false) else {
                continue;
            };
            let page = self.page.clone();
            let times = self.times;
            shutdown.spawn_detached(async move {
                let gave_way = place.evicted().clone();
                let answering = answer(stream, page, place, times.asked_within);
                let answering = tokio::time::timeout(times.connection, answering);
                let _ = gave_way.run_until_cancelled(answering).await;
            });
        }
    }
}

async fn answer(
    stream: TcpStream,
    page: Page,
    place: ConnectionPermit,
    asked_within: Duration,
) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        place.enter(ConnectionStage::Working);
        let response = page.answer(request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    // Some close their half once they have asked.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(asked_within)
        .keep_alive(false)
        .half_close(true);
    builder
        .serve_connection(TokioIo::new(stream), service)
        .await
}

impl Page {
    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        match (self, path) {
            (Self::Health(_), "/livez") => text(StatusCode::OK, "alive\n".into()),
            (Self::Health(readiness), "/readyz") => match readiness.impediment() {
                None => text(StatusCode::OK, "ready\n".into()),
                Some(why) => text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("not ready: {why}\n"),
                ),
            },
            (Self::Health(_), _) => text(
                StatusCode::NOT_FOUND,
                "there are /livez and /readyz\n".into(),
            ),
            (Self::Metrics(scrape), "/metrics") => {
                page(StatusCode::OK, metrics::CONTENT_TYPE, scrape.text())
            }
            (Self::Metrics(_), _) => text(StatusCode::NOT_FOUND, "there is /metrics\n".into()),
        }
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    page(status, "text/plain; charset=utf-8", text)
}

fn page(status: StatusCode, content: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};

    use super::*;

    /// Longer than any test takes.
    const HOUR: Duration = Duration::from_hours(1);

    /// What is answered until the other side closes.
    fn ask(address: SocketAddr, question: &str) -> std::io::Result<String> {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut answer = String::new();
        let _ = stream.write_all(question.as_bytes());
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    async fn listening(times: Times) -> SocketAddr {
        listening_within(times, ProcessLimits::read()).await
    }

    async fn listening_within(times: Times, limits: ProcessLimits) -> SocketAddr {
        let shutdown = Shutdown::manual(Duration::from_secs(1));
        let readiness = Readiness::new(&shutdown);
        readiness.set(None);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let pages = Pages {
            times,
            ..Pages::bind(address, Page::Health(readiness), limits).unwrap()
        };
        let address = pages.address().unwrap();
        shutdown.spawn_detached(pages.serve(shutdown.clone()));
        address
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_process_that_is_not_ready_says_why() {
        let shutdown = Shutdown::manual(Duration::from_secs(1));
        let readiness = Readiness::new(&shutdown);
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let page = Page::Health(readiness.clone());
        let pages = Pages::bind(address, page, ProcessLimits::read()).unwrap();
        let address = pages.address().unwrap();
        shutdown.spawn_detached(pages.serve(shutdown.clone()));
        let ready = || ask(address, "GET /readyz HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
        let starting = ready();
        assert!(starting.starts_with("HTTP/1.1 503"), "{starting}");
        assert!(starting.contains("content-type: text/plain; charset=utf-8\r\n"));
        assert!(
            starting.ends_with("\r\n\r\nnot ready: it is starting\n"),
            "{starting}"
        );
        readiness.set(Some("the queue is full".into()));
        assert!(ready().ends_with("\r\n\r\nnot ready: the queue is full\n"));
        readiness.set(None);
        assert!(ready().ends_with("\r\n\r\nready\n"));
        shutdown.not_ready().cancel();
        let stopping = ready();
        assert!(
            stopping.ends_with("\r\n\r\nnot ready: it was told to stop\n"),
            "{stopping}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_probe_is_answered_among_clients_that_say_nothing() {
        for clients in [40, 300] {
            // Nobody is closed but for others.
            let address = listening(Times {
                connection: HOUR,
                asked_within: HOUR,
            })
            .await;
            let mut silent: std::collections::VecDeque<_> = (0..clients)
                .map(|_| std::net::TcpStream::connect(address).unwrap())
                .collect();
            for _ in 0..40 {
                // Real clients connect again as soon as they are closed, and some send a little.
                for _ in 0..clients / 10 {
                    silent.pop_front();
                    let mut next = std::net::TcpStream::connect(address).unwrap();
                    let _ = next.write_all(b"GET /r");
                    silent.push_back(next);
                }
                let answer = ask(address, "GET /readyz HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
                assert!(
                    answer.starts_with("HTTP/1.1 200"),
                    "{clients} clients: {answer}"
                );
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn silent_clients_take_no_more_descriptors_than_are_their_listeners() {
        let times = Times {
            connection: HOUR,
            asked_within: HOUR,
        };
        let limits = ProcessLimits {
            memory: None,
            descriptors: Some(256),
        };
        let address = listening_within(times, limits).await;
        let mut silent: Vec<_> = (0..64)
            .map(|_| std::net::TcpStream::connect(address).unwrap())
            .collect();
        let answer = ask(address, "GET /readyz HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // Each that was accepted before it and has no place by now is closed: the first ones.
        for stream in &mut silent[..56] {
            let wait = Some(Duration::from_secs(60));
            stream.set_read_timeout(wait).unwrap();
            let end = stream.read(&mut [0]);
            let is_reset = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionReset;
            assert!(
                end.as_ref().map_or_else(is_reset, |length| *length == 0),
                "{end:?}"
            );
        }
        let last = silent.last_mut().unwrap();
        last.set_nonblocking(true).unwrap();
        let waits = last.read(&mut [0]).unwrap_err();
        assert_eq!(waits.kind(), ErrorKind::WouldBlock);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_check_of_http_1_0_needs_no_host_and_a_question_has_to_come_soon() {
        let address = listening(Times {
            connection: HOUR,
            asked_within: ASKED_WITHIN,
        })
        .await;
        let answer = ask(address, "GET /livez HTTP/1.0\r\n\r\n").unwrap();
        assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
        let answer = ask(address, "GET /livez HTTP/1.1\r\n").unwrap();
        assert!(!answer.contains(" 200 "), "{answer}");
    }
}
