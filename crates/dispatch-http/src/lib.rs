//! Posts each event to an HTTP endpoint: the signed bytes, unchanged, as a
//! CloudEvent in binary mode.
//!
//! ```text
//! POST <url>
//! ce-id ce-type ce-source ce-subject ce-time ce-specversion
//! idempotency-key  fluent-attempt  traceparent
//! ```
//!
//! Fluent's signature is never passed on: whoever holds it could replay it.
//! Redirects are not followed, no proxy is taken from the environment, and
//! only addresses that [`addresses`] allows are connected to.
//!
//! Start reading at [`HttpDispatcher`].

pub mod addresses;
mod outcome;
mod settings;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use dispatch::{BoxError, Context, DispatchError, Dispatcher, Done, Event, OpenContext};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, redirect};
use url::Url;

use crate::addresses::CheckedResolver;
use crate::outcome::{from_error, from_response};

pub use crate::settings::HttpSettings;

/// What of a response's body is read so that its connection can be used again;
/// of a longer one, or a slower, the connection is closed.
const DRAIN_BYTES: usize = 64 << 10;
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// How long to wait for a connection, within the route's timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Posts events to one endpoint.
#[derive(Debug)]
pub struct HttpDispatcher {
    client: Client,
    url: Url,
    timeout: Duration,
}

impl Dispatcher for HttpDispatcher {
    const KIND: &'static str = "http";
    type Settings = HttpSettings;

    async fn open(settings: HttpSettings, _: &OpenContext) -> Result<Self, BoxError> {
        let HttpSettings { url, timeout, allow_private } = settings;
        let url = url.into_inner();
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .dns_resolver(CheckedResolver { allow_private })
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("fluent-webhooks/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, url, timeout: timeout.into_inner() })
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        let began = Instant::now();
        let request =
            self.client.post(self.url.clone()).headers(headers(event, cx)).body(event.body().clone());
        let response = request.send().await.map_err(from_error)?;
        let outcome = from_response(&response);
        // The status has decided; the rest is for the connection's sake.
        let left = self.timeout.saturating_sub(began.elapsed()) / 2;
        let _ = tokio::time::timeout(DRAIN_TIME.min(left), drain(response)).await;
        outcome
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

async fn drain(mut response: Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > DRAIN_BYTES {
            return;
        }
    }
}

fn headers(event: &Event, cx: &Context) -> HeaderMap {
    let ours = [
        ("idempotency-key", Some(cx.idempotency_key.clone())),
        ("fluent-attempt", Some(cx.attempt.to_string())),
        ("traceparent", cx.trace.map(|trace| trace.to_string())),
    ];
    let ours = ours.into_iter().filter_map(|(name, value)| Some((name, Cow::Owned(value?))));
    event
        .cloud_event_headers()
        .chain(ours)
        .filter_map(|(name, value)| {
            Some((HeaderName::from_static(name), HeaderValue::from_str(&value).ok()?))
        })
        .collect()
}
