//! Publishes events to the retailer's own NATS subjects, as CloudEvents in binary
//! mode: the signed bytes, unchanged, with the attributes as headers.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/nats-protocol-binding.md>
//!
//! An event is delivered when a stream there has stored it: a server that has
//! merely taken a message forgets it with the next crash. `Nats-Msg-Id` names the
//! delivery and the route, so a stream stores it once within its window, and the
//! events of two routes both.
//!
//! Start reading at [`NatsDispatcher`].

mod ack;
mod subject;

use std::path::PathBuf;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::header::{HeaderMap, HeaderName, NATS_MESSAGE_ID};
use async_nats::{Client, ConnectOptions, Request, RequestError, RequestErrorKind};
use dispatch::{
    BoxError, Context, DispatchError, Dispatcher, Done, Event, OpenContext, Preview, Role,
    TraceParent,
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::ack::Stored;
use crate::subject::Subject;

const ACTION: &str = "publishing to NATS";

/// Longest wait for a connection, and for an acknowledgement.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(5);

/// Publishes to one subject, or to one for each kind of event.
#[derive(Debug)]
pub struct NatsDispatcher {
    client: Client,
    subject: Subject,
}

/// The route's `nats:` table.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NatsSettings {
    /// URLs, such as `nats://host:4222` or `tls://host`; without a password.
    servers: Vec<String>,
    /// A credentials file, if the servers ask for one.
    credentials: Option<PathBuf>,
    /// The only authorities to trust, as PEM.
    ca: Option<PathBuf>,
    /// Where to: text with `{environment}`, `{account}`, `{retailer}`,
    /// `{entity-type}` and `{event}` in it, each filled in as one token.
    subject: Subject,
}

impl Dispatcher for NatsDispatcher {
    const KIND: &'static str = "nats";
    type Settings = NatsSettings;

    async fn open(settings: NatsSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        let NatsSettings {
            servers,
            credentials,
            ca,
            subject,
        } = settings;
        if servers.is_empty() || servers.iter().any(|server| server.contains('@')) {
            return Err("servers: expected a list of URLs without user and password".into());
        }
        let mut options = match credentials {
            Some(path) => ConnectOptions::with_credentials_file(cx.resolve(&path)).await?,
            None => ConnectOptions::new(),
        };
        if let Some(ca) = ca {
            options = options
                .add_root_certificates(cx.resolve(&ca))
                .require_tls(true);
        }
        // Servers that are away at the start delay only this route.
        let options = options
            .retry_on_initial_connect()
            .connection_timeout(CONNECT);
        let client = options
            .name(format!("fluent-webhooks/{}", cx.route))
            .connect(servers)
            .await?;
        Ok(Self { client, subject })
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        // A client without a connection would keep a message, beside the queue, and send it long
        // after the attempt has failed here.
        if self.client.connection_state() != State::Connected {
            return Err(DispatchError::transient(ACTION, "no connection"));
        }
        let call = cx.call(Role::Producer, "publish");
        let headers = headers(event, cx, call.trace());
        let request = Request::new()
            .headers(headers)
            .payload(event.body().clone())
            .timeout(Some(ANSWER));
        let answered = self
            .client
            .send_request(self.subject.of(event), request)
            .await;
        let published = answered.map_err(failed).and_then(|answer| {
            ack::read(&answer.payload).map_err(|error| DispatchError::transient(ACTION, error))
        });
        let attributes = || {
            vec![
                ("messaging.system", "nats".into()),
                ("messaging.operation.type", "send".into()),
            ]
        };
        match &published {
            Ok(_) => call.answered(attributes),
            Err(_) => call.failed("not-stored", attributes),
        }
        published.map(|Stored { remark }| Done {
            status: None,
            remark: remark.map(str::to_owned),
        })
    }

    fn preview(&self, event: &Event, cx: &Context) -> Result<Option<Preview>, DispatchError> {
        let target = format!("subject {}", self.subject.of(event));
        let mut preview = Preview::new(target, String::from_utf8_lossy(event.body()));
        for (name, values) in headers(event, cx, cx.trace).iter() {
            for value in values {
                preview = preview.with(name.to_string(), value.as_str());
            }
        }
        Ok(Some(preview))
    }

    async fn close(&self) {
        let _ = self.client.drain().await;
    }
}

fn headers(event: &Event, cx: &Context, trace: Option<TraceParent>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in event.cloud_event_headers() {
        headers.insert(HeaderName::from_static(name), value.into_owned());
    }
    headers.insert("fluent-attempt", cx.attempt.to_string());
    headers.insert("fluent-origin", event.origin().as_str());
    if let Some(trace) = trace {
        headers.insert("traceparent", trace.to_string());
        if let Some(state) = &cx.trace_state {
            headers.insert("tracestate", state.as_str());
        }
    }
    headers.insert(NATS_MESSAGE_ID, format!("{}/{}", cx.delivery_id, cx.route));
    headers
}

/// Converts an error. A stream may be made, or given room, at any time; a message beyond the
/// server's limit is permanent.
fn failed(error: RequestError) -> DispatchError {
    match error.kind() {
        RequestErrorKind::MaxPayloadExceeded => DispatchError::permanent(ACTION, error),
        RequestErrorKind::NoResponders => {
            DispatchError::transient(ACTION, "no stream takes its subject")
        }
        _ => DispatchError::transient(ACTION, error),
    }
}
