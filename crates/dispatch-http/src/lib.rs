//! Posts each event to an HTTP endpoint: the signed bytes, unchanged, as a
//! CloudEvent in binary mode, unless the settings say otherwise.
//!
//! ```text
//! POST <url>
//! ce-id ce-type ce-source ce-subject ce-time ce-specversion
//! idempotency-key  fluent-attempt  fluent-origin  traceparent
//! authorization  webhook-id webhook-timestamp webhook-signature  and one's own
//! ```
//!
//! Fluent's signature is never passed on: whoever holds it could replay it.
//! Redirects are not followed, no proxy is taken from the environment, and
//! only addresses that [`addresses`] allows are connected to.
//!
//! Start reading at [`HttpDispatcher`].

pub mod addresses;
mod auth;
mod body;
mod headers;
mod outcome;
mod settings;
mod sign;

use std::fs;
use std::time::{Duration, Instant};

use dispatch::{
    Attributes, BoxError, Call, Context, DispatchError, Dispatcher, Done, Event, LONGEST_ANSWER, OpenContext,
    Role,
};
use dispatch_kit::View;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{
    Certificate, Client, ClientBuilder, Identity, Method, RequestBuilder, Response, StatusCode, redirect,
};
use url::Url;

use crate::addresses::{Checked, System};
use crate::auth::Auth;
use crate::body::Bodies;
use crate::headers::{Extra, ours};
use crate::outcome::{Statuses, from_error, kind_of};
use crate::settings::{Format, MethodSettings, TlsSettings};
use crate::sign::Signer;

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
    method: Method,
    url: Url,
    timeout: Duration,
    format: Format,
    bodies: Bodies,
    extra: Extra,
    auth: Option<Auth>,
    signer: Signer,
    statuses: Statuses,
}

impl Dispatcher for HttpDispatcher {
    const KIND: &'static str = "http";
    type Settings = HttpSettings;

    async fn open(settings: HttpSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        settings.ensure_protected_credentials()?;
        let HttpSettings { url, timeout, allow_private, method, format, .. } = settings;
        let builder = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .dns_resolver(Checked { allow_private, resolver: System })
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("fluent-webhooks/", env!("CARGO_PKG_VERSION")));
        Ok(Self {
            client: secured(builder, &settings.tls, cx)?.build()?,
            method: match method {
                MethodSettings::Post => Method::POST,
                MethodSettings::Put => Method::PUT,
                MethodSettings::Patch => Method::PATCH,
            },
            url: url.into_inner(),
            timeout: timeout.into_inner(),
            format,
            bodies: Bodies::open(format, settings.template, cx)?,
            extra: Extra::open(settings.headers, cx)?,
            auth: settings.auth.map(|auth| Auth::open(auth, cx)).transpose()?,
            signer: Signer::open(&settings.sign, cx)?,
            statuses: Statuses::new(&settings.statuses, settings.excerpt)?,
        })
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        let began = Instant::now();
        let mut response = self.send(event, cx).await?;
        let (mut kept, left) = (Vec::new(), self.timeout.saturating_sub(began.elapsed()));
        if cx.wants_answer() && self.statuses.is_done(response.status()) {
            // It has the event, whatever its answer is: one that is too long, or does not
            // end soon enough for the attempt, is none.
            let left = left.mul_f32(0.8);
            let whole = tokio::time::timeout(left, drain(&mut response, LONGEST_ANSWER, &mut kept)).await;
            if matches!(whole, Ok(true)) {
                cx.answered(&kept);
            }
            return self.statuses.outcome(response.status(), response.headers(), &[]);
        }
        // The status has decided; the rest is for the connection's sake.
        let left = DRAIN_TIME.min(left / 2);
        let _ = tokio::time::timeout(left, drain(&mut response, self.statuses.excerpt(), &mut kept)).await;
        self.statuses.outcome(response.status(), response.headers(), &kept)
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl HttpDispatcher {
    async fn send(&self, event: &Event, cx: &Context) -> Result<Response, DispatchError> {
        let needs_view = self.bodies.has_template() || self.extra.has_templates();
        let view = if needs_view { View::of_attempt(event, cx)? } else { View::none() };
        let made = self.bodies.make(event, cx, &view)?;
        let call = cx.call(Role::Client, method_name(&self.method));
        let mut headers = ours(event, cx, call.trace(), self.format);
        self.extra.add(&view, &mut headers)?;
        self.signer.add(cx, &made.bytes, &mut headers)?;
        set_content_type(&mut headers, made.content_type);
        let request = self.client.request(self.method.clone(), self.url.clone());
        let request = request.body(made.into_body(event));
        let Some(auth) = &self.auth else { return self.exchange(request.headers(headers), call).await };
        let shown = auth.add(&self.client, &mut headers).await?;
        let response = self.exchange(request.headers(headers), call).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            auth.refused(&shown);
        }
        Ok(response)
    }
}

impl HttpDispatcher {
    async fn exchange(&self, request: RequestBuilder, call: Call) -> Result<Response, DispatchError> {
        let response = request.send().await;
        let status = response.as_ref().ok().map(|response| response.status());
        let attributes = || {
            let mut said: Attributes = vec![("http.request.method", method_name(&self.method).into())];
            said.extend(self.url.host_str().map(|host| ("server.address", host.into())));
            said.extend(self.url.port_or_known_default().map(|port| ("server.port", port.into())));
            said.extend(status.map(|status| ("http.response.status_code", status.as_u16().into())));
            said
        };
        match (&response, status) {
            (Err(error), _) => call.failed(kind_of(error), attributes),
            (_, Some(status)) if !status.is_success() => call.failed(status.as_str(), attributes),
            _ => call.answered(attributes),
        }
        response.map_err(from_error)
    }
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        _ => "POST",
    }
}

fn set_content_type(headers: &mut HeaderMap, content_type: &str) {
    if let Ok(value) = HeaderValue::from_str(content_type) {
        headers.insert(CONTENT_TYPE, value);
    }
}

/// Reads what is left of a response, up to a bound, and keeps its beginning. Whether
/// that was all.
async fn drain(response: &mut Response, keep: usize, kept: &mut Vec<u8>) -> bool {
    let mut read = 0;
    loop {
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            end => return end.is_ok(),
        };
        let left = keep.saturating_sub(kept.len()).min(chunk.len());
        kept.extend_from_slice(&chunk[..left]);
        read += chunk.len();
        if read > DRAIN_BYTES {
            return false;
        }
    }
}

fn secured(
    mut builder: ClientBuilder,
    tls: &TlsSettings,
    cx: &OpenContext,
) -> Result<ClientBuilder, BoxError> {
    let read = |path: &std::path::Path| {
        let path = cx.resolve(path);
        fs::read(&path).map_err(|error| format!("tls: reading {}: {error}", path.display()))
    };
    if let Some(ca) = &tls.ca {
        let found = Certificate::from_pem_bundle(&read(ca)?)?;
        if found.is_empty() {
            return Err("tls.ca: no certificate in it".into());
        }
        builder = builder.tls_certs_only(found);
    }
    match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            let pem = [read(certificate)?, b"\n".to_vec(), read(key)?].concat();
            Ok(builder.identity(Identity::from_pem(&pem)?))
        }
        (None, None) => Ok(builder),
        _ => Err("tls: expected certificate and key together".into()),
    }
}
