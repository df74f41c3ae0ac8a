//! A gRPC server for any dispatcher.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use dispatch::{AnyDispatcher, Context, Event, ResponseCapture, TraceParent, TraceState};
use futures::FutureExt;
use grpc::{EventDecodeError, MAX_MESSAGE};
use process::Shutdown;
use proto::v1;
use proto::v1::dispatcher_server::DispatcherServer;
use telemetry::{Attribute, Kind, Parent, Span, SpanStatus};
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status};

use crate::failure;
use crate::remote::METHOD;

/// Longest time that a caller may ask for.
const LONGEST: Duration = Duration::from_hours(1);

/// Any dispatcher, served to other processes: the other side of
/// [`Remote`](crate::Remote).
///
/// ```
/// use dispatch::{AnyDispatcher, Dispatcher};
/// use fluent_dispatch_grpc::Server;
/// use grpc::{GrpcServer, Routes};
/// use process::{Readiness, Shutdown};
/// use settings::SettingsTree;
///
/// /// Serves a dispatcher where the settings' section `operator` says.
/// async fn serve<D: Dispatcher>(
///     dispatcher: D,
///     settings: &SettingsTree,
///     shutdown: &Shutdown,
/// ) -> anyhow::Result<()> {
///     let operator = settings.operator()?.ok_or_else(|| anyhow::anyhow!("no section `operator`"))?;
///     let listener = GrpcServer::bind(&operator, shutdown).await?;
///     let server = Server::new(AnyDispatcher::of(dispatcher), shutdown.clone());
///     let readiness = Readiness::new(shutdown);
///     listener.serve(Routes::new(server.service()), readiness.clone(), shutdown)?;
///     readiness.set(None);
///     shutdown.draining().cancelled().await;
///     shutdown.finish().await;
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Server {
    dispatcher: AnyDispatcher,
    shutdown: Shutdown,
}

impl Server {
    /// Makes the server. Once the process stops it refuses new calls, and waits for running ones.
    pub fn new(dispatcher: AnyDispatcher, shutdown: Shutdown) -> Self {
        Self {
            dispatcher,
            shutdown,
        }
    }

    /// Returns the service for tonic.
    pub fn service(self) -> DispatcherServer<Self> {
        DispatcherServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Runs the dispatcher within the caller's time. A caller that disconnects drops this future,
    /// and with it the attempt.
    async fn handle(&self, event: &Event, cx: &Context) -> Result<v1::DispatchResponse, Status> {
        let attempt = AssertUnwindSafe(self.dispatcher.dispatch(event, cx)).catch_unwind();
        match timeout(cx.timeout, attempt).await {
            Ok(Ok(Ok(done))) => {
                let answer = cx
                    .response
                    .as_ref()
                    .map(ResponseCapture::take)
                    .unwrap_or_default();
                let remark = done
                    .remark
                    .map(|remark| failure::shortened(&remark))
                    .unwrap_or_default();
                Ok(v1::DispatchResponse {
                    status: done.status.map(u32::from),
                    answer,
                    remark,
                })
            }
            Ok(Ok(Err(error))) => Err(failure::status(&error)),
            Ok(Err(_)) => Err(Status::internal("the dispatcher panicked")),
            Err(_) => Err(Status::deadline_exceeded("no answer before the deadline")),
        }
    }

    fn context(&self, delivery: &v1::Delivery) -> Result<Context, EventDecodeError> {
        let asked = delivery.timeout.as_ref().and_then(grpc::duration_of);
        let longest = asked
            .ok_or(EventDecodeError::Missing("delivery.timeout"))?
            .min(LONGEST);
        let started_at = delivery.started_at.as_ref().and_then(grpc::timestamp_of);
        let mut cx = Context::new(&*delivery.route, &*delivery.idempotency_key, longest);
        cx.delivery_id.clone_from(&delivery.id);
        cx.attempt = delivery.attempt;
        cx.started_at = started_at.ok_or(EventDecodeError::Missing("delivery.started_at"))?;
        cx.trace = trace(delivery);
        let state = cx
            .trace
            .and_then(|_| TraceState::read([delivery.tracestate.as_bytes()]));
        cx.trace_state = state;
        cx.enriched = grpc::enriched_of(delivery)?;
        cx.tracer = Some(telemetry::calls());
        cx.response = delivery.wants_answer.then(ResponseCapture::default);
        cx.cancellation = self.shutdown.hard_stop();
        Ok(cx)
    }
}

fn trace(delivery: &v1::Delivery) -> Option<TraceParent> {
    delivery.traceparent.parse().ok()
}

/// Ends a span. A handler that refuses an event is no failure of ours; one that breaks is.
fn ended(span: Span, code: Code) {
    let is_failure = matches!(
        code,
        Code::Unknown | Code::Internal | Code::DeadlineExceeded | Code::DataLoss
    );
    let ended = if is_failure {
        SpanStatus::Failed(grpc::code_name(code))
    } else {
        SpanStatus::Ok
    };
    span.end(ended, || {
        vec![
            Attribute::new("rpc.system.name", "grpc"),
            Attribute::new("rpc.method", METHOD),
            Attribute::new("rpc.response.status_code", grpc::code_name(code)),
        ]
    });
}

#[tonic::async_trait]
impl v1::dispatcher_server::Dispatcher for Server {
    async fn dispatch(
        &self,
        request: Request<v1::DispatchRequest>,
    ) -> Result<Response<v1::DispatchResponse>, Status> {
        let _working = self.shutdown.track();
        if self.shutdown.draining().is_cancelled() {
            return Err(failure::stopping());
        }
        let v1::DispatchRequest { event, delivery } = request.into_inner();
        let read = || {
            let delivery = delivery.ok_or(EventDecodeError::Missing("delivery"))?;
            let event = event.ok_or(EventDecodeError::Missing("event"))?;
            Ok((
                grpc::restore(event, trace(&delivery))?,
                self.context(&delivery)?,
            ))
        };
        let (event, mut cx) = read()
            .map_err(|error: EventDecodeError| Status::invalid_argument(error.to_string()))?;
        let span = Span::begin(
            Kind::Server,
            METHOD,
            cx.trace.map_or(Parent::Root, Parent::Remote),
        );
        cx.trace = Some(span.context());
        let answer = self.handle(&event, &cx).await;
        ended(span, answer.as_ref().err().map_or(Code::Ok, Status::code));
        answer.map(Response::new)
    }
}
