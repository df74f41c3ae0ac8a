//! Posts each event to an HTTP endpoint: the signed bytes, unchanged, as a
//! CloudEvent in binary mode, unless the settings say otherwise.
//!
//! ```text
//! POST <url>
//! ce-id ce-type ce-source ce-subject ce-time ce-specversion
//! idempotency-key  fluent-attempt  fluent-origin  traceparent  tracestate
//! authorization  webhook-id webhook-timestamp webhook-signature  and one's own
//! ```
//!
//! Fluent's signature is never passed on: whoever holds it could replay it.
//! Redirects are not followed, no proxy is taken from the environment, and
//! only addresses that [`http_client::addresses`] allows are connected to.
//!
//! Start reading at [`HttpDispatcher`].

mod answer;
mod auth;
mod body;
mod headers;
mod outcome;
mod settings;
mod sign;
mod tls;

use std::time::Duration;

use dispatch::{
    Attributes, BoxError, CallSpan, Context, DispatchError, Dispatcher, Done, Event, MASKED,
    OpenContext, OpenErrors, Preview, Role, TraceParent,
};
use dispatch_kit::View;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};
use http_client::{Answer, HttpClient, RequestParts, uri_of, usual_headers};
use tokio::time::Instant;

use crate::auth::Auth;
use crate::body::{Bodies, RequestBody};
use crate::headers::{ExtraHeaders, add_ours};
use crate::outcome::{Statuses, from_error};
use crate::settings::{Format, MethodSettings};
use crate::sign::Signer;

pub use crate::settings::HttpSettings;

/// Time before the end of an attempt at which reading an answer stops if its status came:
/// reported in time, the event is done.
const BEFORE_THE_END: Duration = Duration::from_millis(250);

/// Posts events to one endpoint.
#[derive(Debug)]
pub struct HttpDispatcher {
    client: HttpClient,
    method: Method,
    uri: Uri,
    timeout: Duration,
    format: Format,
    bodies: Bodies,
    extra: ExtraHeaders,
    auth: Option<Auth>,
    signer: Signer,
    statuses: Statuses,
}

impl Dispatcher for HttpDispatcher {
    const KIND: &'static str = "http";
    type Settings = HttpSettings;

    async fn open(settings: HttpSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        let mut errors = OpenErrors::default();
        errors.check(settings.ensure_protected_credentials());
        let tls = tls::client_config(&settings.tls, settings.needs_tls(), cx);
        let tls = errors.check(tls);
        let uri = errors.check(uri_of(&settings.url.into_inner()));
        let bodies = errors.check(Bodies::open(settings.format, settings.template, cx));
        let extra = errors.check(ExtraHeaders::open(settings.headers, cx));
        let auth = settings.auth.map(|auth| Auth::open(auth, cx)).transpose();
        let auth = errors.check(auth);
        let signer = errors.check(Signer::open(&settings.sign, cx));
        let statuses = Statuses::new(&settings.statuses, settings.error_body_bytes);
        let statuses = errors.check(statuses);
        match (tls, uri, bodies, extra, auth, signer, statuses) {
            (
                Some(tls),
                Some(uri),
                Some(bodies),
                Some(extra),
                Some(auth),
                Some(signer),
                Some(statuses),
            ) if errors.is_empty() => Ok(Self {
                client: HttpClient::new(tls, settings.allow_private),
                method: match settings.method {
                    MethodSettings::Post => Method::POST,
                    MethodSettings::Put => Method::PUT,
                    MethodSettings::Patch => Method::PATCH,
                },
                uri,
                timeout: settings.timeout.into_inner(),
                format: settings.format,
                bodies,
                extra,
                auth,
                signer,
                statuses,
            }),
            _ => Err(errors.into_error()),
        }
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        let whole = cx.timeout.min(self.timeout);
        let deadline = Instant::now() + whole.saturating_sub(BEFORE_THE_END.min(whole / 10));
        let answer = self.send(event, cx, deadline).await?;
        answer::outcome(answer, cx, &self.statuses, deadline).await
    }

    fn preview(&self, event: &Event, cx: &Context) -> Result<Option<Preview>, DispatchError> {
        let view = self.view(event, cx)?;
        let made = self.bodies.make(event, cx, &view)?;
        let headers = self.headers(event, cx, cx.trace, &view, &made)?;
        let target = format!("{} {}", self.method, without_secrets(&self.uri));
        let mut preview = Preview::new(target, String::from_utf8_lossy(&made.bytes));
        for (name, value) in &headers {
            preview = preview.with(name.as_str(), shown(name, value));
        }
        if let Some(auth) = &self.auth {
            preview = preview.with("authorization", format!("{} {MASKED}", auth.scheme()));
        }
        Ok(Some(preview))
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// An address for people. The values in its query may be secrets; there is no user in it.
fn without_secrets(uri: &Uri) -> String {
    let shown = uri.to_string();
    let Some((address, query)) = shown.split_once('?') else {
        return shown;
    };
    let masked = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}={MASKED}"),
        None => MASKED.to_owned(),
    });
    format!("{address}?{}", masked.collect::<Vec<_>>().join("&"))
}

/// A header's value for people. A signature is made with a secret, and would prove this body.
fn shown(name: &HeaderName, value: &HeaderValue) -> String {
    if value.is_sensitive() || name == "webhook-signature" {
        return MASKED.to_owned();
    }
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

impl HttpDispatcher {
    async fn send(
        &self,
        event: &Event,
        cx: &Context,
        deadline: Instant,
    ) -> Result<Answer, DispatchError> {
        let view = self.view(event, cx)?;
        let made = self.bodies.make(event, cx, &view)?;
        let call = cx.call(Role::Client, method_name(&self.method));
        let mut headers = self.headers(event, cx, call.trace(), &view, &made)?;
        let shown = match &self.auth {
            Some(auth) => Some((auth, auth.add(&self.client, &mut headers, deadline).await?)),
            None => None,
        };
        let body = made.into_bytes(event);
        let asked = RequestParts {
            method: self.method.clone(),
            uri: self.uri.clone(),
            headers,
            body,
        };
        let answer = self.exchange(asked, call, deadline).await?;
        if let Some((auth, shown)) = shown.filter(|_| answer.status() == StatusCode::UNAUTHORIZED) {
            auth.refused(&shown);
        }
        Ok(answer)
    }

    fn view(&self, event: &Event, cx: &Context) -> Result<View, DispatchError> {
        if self.bodies.has_template() || self.extra.has_templates() {
            View::of_attempt(event, cx)
        } else {
            Ok(View::none())
        }
    }

    /// Every header but that of the login, for which somebody may have to be asked.
    fn headers(
        &self,
        event: &Event,
        cx: &Context,
        trace: Option<TraceParent>,
        view: &View,
        made: &RequestBody<'_>,
    ) -> Result<HeaderMap, DispatchError> {
        let mut headers = usual_headers();
        add_ours(event, cx, trace, self.format, &mut headers);
        self.extra.add(view, &mut headers)?;
        self.signer.add(cx, &made.bytes, &mut headers)?;
        set_content_type(&mut headers, made.content_type);
        Ok(headers)
    }

    async fn exchange(
        &self,
        asked: RequestParts,
        call: CallSpan,
        deadline: Instant,
    ) -> Result<Answer, DispatchError> {
        let answer = self.client.send(asked, deadline).await;
        let status = answer.as_ref().ok().map(Answer::status);
        let attributes = || {
            let mut said: Attributes =
                vec![("http.request.method", method_name(&self.method).into())];
            said.extend(self.uri.host().map(|host| ("server.address", host.into())));
            said.extend(port_of(&self.uri).map(|port| ("server.port", port.into())));
            said.extend(status.map(|status| ("http.response.status_code", status.as_u16().into())));
            said
        };
        match (&answer, status) {
            (Err(error), _) => call.failed(error.kind(), attributes),
            (_, Some(status)) if !status.is_success() => call.failed(status.as_str(), attributes),
            _ => call.answered(attributes),
        }
        answer.map_err(from_error)
    }
}

fn port_of(uri: &Uri) -> Option<u16> {
    let usual = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    uri.port_u16().or(Some(usual))
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
