//! The HTTP client, and how much of an answer can be relied on.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{CaptureConnection, HttpConnector, capture_connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tower::Service;
use url::Url;

use crate::addresses::{CheckedResolver, System};
use crate::status_tap::{StatusTap, TappedStream};
use crate::{BoxError, SendFailure, Target};

/// Longest wait for a connection, within the attempt's time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Time after which an idle connection is closed.
const IDLE: Duration = Duration::from_secs(90);

/// Silence on a connection after which it is checked for life.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Most headers of an answer, and bytes of its head, that are read. Of a larger answer only the
/// status counts.
const MAX_HEADERS: usize = 512;
const MAX_HEAD: usize = 128 << 10;

/// Sends requests over connections that are used again.
#[derive(Clone, Debug)]
pub struct HttpClient {
    pooled: Client<Connector, RequestBody>,
    /// Client that makes a connection for each request.
    unpooled: Client<Connector, RequestBody>,
}

/// A request to send.
#[derive(Clone, Debug)]
pub struct RequestParts {
    /// Its method.
    pub method: Method,
    /// Its URL: see [`uri_of`].
    pub uri: Uri,
    /// Its headers, those of [`usual_headers`] included.
    pub headers: HeaderMap,
    /// Its body; its length is sent with it.
    pub body: Bytes,
}

/// An answer whose status is known.
#[derive(Debug)]
pub enum Answer {
    /// Its head was read.
    Readable(Response<Incoming>),
    /// Only its status was read.
    StatusOnly(StatusCode, SendError),
}

/// Reason for which a request has no answer, or none that can be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No connection was made.
    #[error(transparent)]
    Connect(SendFailure),
    /// No connection was made in time.
    #[error(transparent)]
    ConnectTimeout(SendFailure),
    /// The connection broke, or what came on it is no answer.
    #[error(transparent)]
    Broken(SendFailure),
    /// A status came, and no end of the headers behind it.
    #[error("its headers did not end in time")]
    Endless,
}

impl SendError {
    fn new(error: &ClientError, target: &Target) -> Self {
        let causes = std::iter::successors(error.source(), |cause| (*cause).source());
        let is_timeout = causes.into_iter().any(|cause| cause.is::<ConnectTimeout>());
        let failure = || SendFailure::of(error, error.is_connect(), target);
        match error.is_connect() {
            true if is_timeout => {
                let address = target.to_string();
                Self::ConnectTimeout(SendFailure::TimedOut(address, CONNECT_TIMEOUT))
            }
            true => Self::Connect(failure()),
            false => Self::Broken(failure()),
        }
    }

    /// Names the kind of error in one word, for traces.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "no-connection",
            Self::ConnectTimeout(_) | Self::Endless => "timeout",
            Self::Broken(_) => "broken-off",
        }
    }
}

impl Answer {
    /// Returns its status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Readable(response) => response.status(),
            Self::StatusOnly(status, _) => *status,
        }
    }
}

impl HttpClient {
    /// Makes a client with these settings of TLS. Without `allow_private` it connects to no name
    /// that resolves into a private network.
    pub fn new(tls: ClientConfig, allow_private: bool) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(CheckedResolver {
            allow_private,
            resolver: System,
        });
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1();
        let connector = Connector(https.wrap_connector(tcp));
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_max_buf_size(MAX_HEAD)
            .http1_max_headers(MAX_HEADERS)
            .http1_ignore_invalid_headers_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true);
        let pooled = builder.build(connector.clone());
        let unpooled = builder.pool_max_idle_per_host(0).build(connector);
        Self { pooled, unpooled }
    }

    /// Sends a request. One that went out on a connection which the endpoint was just closing,
    /// and was never answered, is sent once more on a new one.
    ///
    /// A status that came before `deadline` is an answer; without one this never returns, and the
    /// caller has to end it.
    pub async fn send(&self, asked: RequestParts, deadline: Instant) -> Result<Answer, SendError> {
        let (answer, exchange) = exchange(&self.pooled, asked.clone(), deadline).await;
        if matches!(answer, Err(SendError::Broken(_))) && exchange.is_unanswered_reuse() {
            let (answer, exchange) = self::exchange(&self.unpooled, asked, deadline).await;
            return understood(answer, &exchange);
        }
        understood(answer, &exchange)
    }
}

fn understood(
    answer: Result<Response<Incoming>, SendError>,
    exchange: &Exchange,
) -> Result<Answer, SendError> {
    let error = match answer {
        Ok(response) => return Ok(Answer::Readable(response)),
        Err(error) => error,
    };
    match exchange.status() {
        Some(status) => Ok(Answer::StatusOnly(status, error)),
        None => Err(error),
    }
}

async fn exchange(
    client: &Client<Connector, RequestBody>,
    asked: RequestParts,
    deadline: Instant,
) -> (Result<Response<Incoming>, SendError>, Exchange) {
    let RequestParts {
        method,
        uri,
        headers,
        body,
    } = asked;
    let target = Target::of(&uri).unwrap_or_default();
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    *request.headers_mut() = headers;
    let exchange = Exchange {
        connection: capture_connection(&mut request),
        asked: std::time::Instant::now(),
        begun: Arc::default(),
    };
    let request = request.map(|()| RequestBody {
        bytes: Some(body),
        exchange: exchange.clone(),
    });
    let answer = match timeout_at(deadline, client.request(request)).await {
        Ok(answer) => answer.map_err(|error| SendError::new(&error, &target)),
        Err(_) if exchange.status().is_some() => Err(SendError::Endless),
        Err(_) => pending().await,
    };
    (answer, exchange)
}

/// One request on its connection.
#[derive(Clone, Debug)]
struct Exchange {
    connection: CaptureConnection,
    asked: std::time::Instant,
    /// What is noted of the connection, and the request's number on it, from its beginning.
    begun: Arc<OnceLock<(StatusTap, u32)>>,
}

impl Exchange {
    fn tap(&self) -> Option<StatusTap> {
        let mut extras = http::Extensions::new();
        self.connection
            .connection_metadata()
            .as_ref()?
            .get_extras(&mut extras);
        extras.remove()
    }

    /// Notes that the connection begins to write the request.
    fn begin(&self) {
        if self.begun.get().is_none()
            && let Some(tap) = self.tap()
        {
            self.begun.get_or_init(|| {
                let number = tap.begin();
                (tap, number)
            });
        }
    }

    fn status(&self) -> Option<StatusCode> {
        self.begun
            .get()
            .and_then(|(tap, number)| tap.status(*number))
    }

    fn is_unanswered_reuse(&self) -> bool {
        self.begun
            .get()
            .is_some_and(|(tap, number)| tap.is_unanswered_reuse(*number, self.asked))
    }
}

/// A request's body. The connection asks for it when it begins to write the request, in its own
/// task and before the first byte goes out: no other moment is sure to lie between the previous
/// answer and the next.
#[derive(Debug)]
struct RequestBody {
    bytes: Option<Bytes>,
    exchange: Exchange,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.exchange.begin();
        Poll::Ready(
            self.bytes
                .take()
                .filter(|bytes| !bytes.is_empty())
                .map(|bytes| Ok(Frame::data(bytes))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.begin();
        self.bytes.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// Room for the headers of most requests, so that the map need not grow.
const USUAL_HEADERS: usize = 24;

/// What every request has, unless the settings say otherwise.
pub fn usual_headers() -> HeaderMap {
    let agent = HeaderValue::from_static(concat!("fluent-webhooks/", env!("CARGO_PKG_VERSION")));
    let mut headers = HeaderMap::with_capacity(USUAL_HEADERS);
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(USER_AGENT, agent);
    headers
}

/// Converts a URL for a request.
pub fn uri_of(url: &Url) -> Result<Uri, BoxError> {
    // The reason is left out: the URL may hold a secret.
    url.as_str()
        .parse()
        .map_err(|_| "a URL that no request can have: expected it percent-encoded".into())
}

/// Connects in a bounded time, and notes what comes on each connection.
#[derive(Clone, Debug)]
struct Connector(HttpsConnector<HttpConnector<CheckedResolver<System>>>);

#[derive(Debug, thiserror::Error)]
#[error("no connection in time")]
struct ConnectTimeout;

type Stream = TokioIo<TappedStream<TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>>>;

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.0.call(to);
        Box::pin(async move {
            let stream = timeout(CONNECT_TIMEOUT, connecting)
                .await
                .map_err(|_| ConnectTimeout)??;
            Ok(TokioIo::new(TappedStream::new(TokioIo::new(stream))))
        })
    }
}
