//! A retailer's endpoint that answers as told, and keeps every request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, Uri};
use tokio::net::TcpListener;

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// The path of the request.
    pub path: String,
    /// The headers of the request.
    pub headers: HeaderMap,
    /// The body of the request.
    pub body: Bytes,
}

impl Request {
    /// The value of a header, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

type Answer = dyn Fn(&Request, usize) -> Response<Body> + Send + Sync;

/// An endpoint on a port of its own, for as long as the test's runtime lives.
#[derive(Clone)]
pub struct Sink {
    /// The address that it listens on.
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    answer: Arc<Answer>,
}

/// The requests in their order, and the number of requests for each event, which long runs read
/// all the time.
#[derive(Default)]
struct Seen {
    requests: Vec<Request>,
    counts: HashMap<String, usize>,
}

/// A status for tests that stands for no answer, for longer than anybody waits.
pub const HANGS: u16 = 299;

/// A status for tests that stands for an answer after two seconds.
pub const SLOW: u16 = 298;

/// An answer without a body.
pub fn status(status: u16) -> Response<Body> {
    Response::builder()
        .status(status)
        .body(Body::empty())
        .unwrap()
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Sink {
    /// Opens an endpoint that answers 200 to everything.
    pub async fn open() -> Self {
        Self::answering(|_, _| status(200)).await
    }

    /// Opens an endpoint with the answers of a function, which gets the request and the number of
    /// earlier requests for its event.
    pub async fn answering(
        answer: impl Fn(&Request, usize) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            answer: Arc::new(answer),
        };
        let router = Router::new().fallback(receive).with_state(sink.clone());
        #[expect(clippy::disallowed_methods, reason = "it ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        sink
    }

    /// The YAML of a route of this name to this endpoint.
    pub fn route(&self, name: &str, rest: &str) -> String {
        format!(
            "    - {{ name: {name}, dispatcher: http, http: {{ url: \"http://{}/{name}\" }}, {rest} }}\n",
            self.address
        )
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().requests.clone()
    }

    /// The number of requests for each event.
    pub fn counts(&self) -> HashMap<String, usize> {
        self.seen.lock().unwrap().counts.clone()
    }

    /// How many different events arrived.
    pub fn different(&self) -> usize {
        self.seen.lock().unwrap().counts.len()
    }

    /// Whether there was no request.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of requests.
    pub fn len(&self) -> usize {
        self.seen.lock().unwrap().requests.len()
    }
}

async fn receive(
    State(sink): State<Sink>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let request = Request {
        path: uri.path().to_owned(),
        headers,
        body,
    };
    let before = {
        let mut seen = sink.seen.lock().unwrap();
        seen.requests.push(request.clone());
        let count = seen
            .counts
            .entry(request.header("ce-id").to_owned())
            .or_default();
        *count += 1;
        *count - 1
    };
    let response = (sink.answer)(&request, before);
    match response.status().as_u16() {
        HANGS => tokio::time::sleep(Duration::from_mins(10)).await,
        SLOW => tokio::time::sleep(Duration::from_secs(2)).await,
        _ => {}
    }
    response
}
