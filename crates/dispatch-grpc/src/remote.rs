//! The dispatcher `grpc`, which calls a handler in another process.

use std::error::Error;
use std::time::Duration;

use dispatch::{
    BoxError, Context, DispatchError, Dispatcher, Done, Event, OpenContext, ResultExt, Role,
    TraceParent, TraceState,
};
use dispatch_kit::Secret;
use grpc::MAX_MESSAGE;
use proto::v1;
use proto::v1::dispatcher_client::DispatcherClient;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status};

use crate::answer::{LenientCodec, Remark};
use crate::failure::{failure, is_stopping, shortened};
use crate::replicas::{Call, Replicas};
use crate::settings::GrpcSettings;

/// Name of the call in traces.
pub(crate) const METHOD: &str = "fluent.webhooks.v1.Dispatcher/Dispatch";

/// Longest time of an attempt, if the settings say nothing.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Time before the end of an attempt at which a status among the headers is accepted without
/// another: reported in time, the event is done.
const BEFORE_THE_END: Duration = Duration::from_millis(250);

/// How often what was never begun is asked again at once. Once is not enough: a connection that
/// closes may be handed out again before it is known to be closed.
const ASKED_AGAIN: usize = 4;

/// Hands each event to a dispatcher in another process, or a handler in another
/// language.
#[derive(Debug)]
pub struct Remote {
    replicas: Replicas,
    token: Option<Secret>,
    timeout: Duration,
}

impl Dispatcher for Remote {
    const KIND: &'static str = "grpc";
    type Settings = GrpcSettings;

    async fn open(settings: GrpcSettings, cx: &OpenContext) -> Result<Self, BoxError> {
        let token = settings
            .token
            .as_ref()
            .map(|token| Secret::open(token, cx))
            .transpose()?;
        let replicas = Replicas::new(settings.targets(cx)?)?;
        Ok(Self {
            replicas,
            token,
            timeout: settings.timeout.unwrap_or(TIMEOUT),
        })
    }

    async fn dispatch(&self, event: &Event, cx: &Context) -> Result<Done, DispatchError> {
        let authorization = self.authorization()?;
        let whole = cx.timeout.min(self.timeout);
        let deadline = Instant::now() + whole.saturating_sub(BEFORE_THE_END.min(whole / 10));
        let replicas = self
            .replicas
            .in_turn()
            .await
            .transient("reaching the remote dispatcher")?;
        let mut unreachable = None;
        for replica in replicas {
            let mut call = replica.call();
            let mut asked = self
                .ask(&call, event, cx, authorization.clone(), deadline)
                .await;
            for _ in 0..ASKED_AGAIN {
                if !asked.as_ref().is_err_and(is_never_begun) {
                    break;
                }
                asked = self
                    .ask(&call, event, cx, authorization.clone(), deadline)
                    .await;
            }
            if !asked
                .as_ref()
                .is_err_and(|status| is_broken(status) || is_stopping(status))
            {
                call.note_answered();
            }
            match asked {
                // Nothing was begun yet: another replica may be called at once.
                Err(status)
                    if is_not_connected(&status)
                        || is_stopping(&status)
                        || is_never_begun(&status) =>
                {
                    unreachable = Some(status)
                }
                Err(status) => return Err(failure(&status)),
                Ok(answered) => {
                    let HandlerAnswer {
                        status,
                        answer,
                        ours,
                        theirs,
                    } = answered;
                    let ours =
                        ours.or_else(|| (!cx.answered(&answer)).then(|| TOO_LONG.to_owned()));
                    let remark = joined([ours, theirs]);
                    return Ok(Done { status, remark });
                }
            }
        }
        match unreachable {
            Some(status) => Err(status).transient("connecting to the remote dispatcher"),
            None => Err("none of the endpoints' names has an address")
                .transient("looking up the remote dispatcher"),
        }
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// Answer of a handler that has the event.
struct HandlerAnswer {
    status: Option<u16>,
    answer: Vec<u8>,
    /// Remark on what was wrong with the answer.
    ours: Option<String>,
    /// Remark of the handler on the answer that it got itself.
    theirs: Option<String>,
}

fn joined(remarks: [Option<String>; 2]) -> Option<String> {
    remarks
        .into_iter()
        .flatten()
        .reduce(|one, other| format!("{one}; {other}"))
}

const TOO_LONG: &str = "its answer is too long to be passed on";

impl Remote {
    fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, DispatchError> {
        let Some(token) = &self.token else {
            return Ok(None);
        };
        grpc::bearer(&token.get()?)
            .map(Some)
            .transient("reading a secret")
    }

    /// Calls one replica, in a span of its own.
    async fn ask(
        &self,
        call: &Call,
        event: &Event,
        cx: &Context,
        authorization: Option<MetadataValue<Ascii>>,
        deadline: Instant,
    ) -> Result<HandlerAnswer, Status> {
        let span = cx.call(Role::Client, METHOD);
        let channel = LenientCodec {
            channel: call.channel(),
            remark: Remark::default(),
            deadline,
        };
        let asked = ask(channel, event, cx, span.trace(), authorization).await;
        let code = asked.as_ref().err().map_or(Code::Ok, Status::code);
        let attributes = || {
            vec![
                ("rpc.system.name", "grpc".into()),
                ("rpc.method", METHOD.into()),
                ("rpc.response.status_code", grpc::code_name(code).into()),
            ]
        };
        match code {
            Code::Ok => span.answered(attributes),
            _ => span.failed(grpc::code_name(code), attributes),
        }
        asked
    }
}

fn request(event: &Event, cx: &Context, trace: Option<TraceParent>) -> v1::DispatchRequest {
    let mut delivery = grpc::delivery(
        &cx.delivery_id,
        &cx.route,
        cx.attempt,
        &cx.idempotency_key,
        cx.started_at,
        cx.timeout,
        trace,
    );
    delivery.tracestate = state(cx, trace).unwrap_or_default().to_owned();
    delivery.wants_answer = cx.wants_answer();
    delivery.enriched = grpc::enriched(cx.enriched.as_ref());
    v1::DispatchRequest {
        event: Some(grpc::event(event)),
        delivery: Some(delivery),
    }
}

async fn ask(
    channel: LenientCodec,
    event: &Event,
    cx: &Context,
    trace: Option<TraceParent>,
    authorization: Option<MetadataValue<Ascii>>,
) -> Result<HandlerAnswer, Status> {
    let remark = channel.remark.clone();
    let mut client = DispatcherClient::new(channel).max_encoding_message_size(MAX_MESSAGE);
    let mut request = Request::new(request(event, cx, trace));
    request.set_timeout(cx.timeout);
    if let Some(authorization) = authorization {
        request
            .metadata_mut()
            .insert("authorization", authorization);
    }
    if let Some(parent) = trace.and_then(|trace| trace.to_string().parse().ok()) {
        request.metadata_mut().insert("traceparent", parent);
    }
    if let Some(state) = state(cx, trace).and_then(|state| state.parse().ok()) {
        request.metadata_mut().insert("tracestate", state);
    }
    let answer = client.dispatch(request).await?.into_inner();
    let status = answer.status.and_then(|status| u16::try_from(status).ok());
    let theirs = Some(shortened(&answer.remark)).filter(|remark| !remark.is_empty());
    Ok(HandlerAnswer {
        status,
        answer: answer.answer,
        ours: remark.take(),
        theirs,
    })
}

/// Returns the `tracestate` to send beside the `traceparent`.
fn state(cx: &Context, trace: Option<TraceParent>) -> Option<&str> {
    trace.and(cx.trace_state.as_ref()).map(TraceState::as_str)
}

/// Whether the connection failed and the handler did not answer.
fn is_broken(status: &Status) -> bool {
    status.source().is_some()
}

fn is_not_connected(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<tonic::ConnectError>())
}

/// Whether a kept connection was just closing: the handler says that it did not look at the call
/// (RFC 9113, sections 6.8 and 8.7), or the call never went out. Calling again at once can't be a
/// second effect.
fn is_never_begun(status: &Status) -> bool {
    causes(status).any(|cause| {
        let is_refused = |error: &h2::Error| {
            error.is_remote()
                && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
        };
        cause.downcast_ref().is_some_and(is_refused)
            || cause.downcast_ref().is_some_and(hyper::Error::is_canceled)
    })
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |cause| (*cause).source())
}
