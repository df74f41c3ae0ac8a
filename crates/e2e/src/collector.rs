//! A real OTLP receiver, over gRPC and HTTP, that keeps what services send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// One span that arrived, as text.
#[derive(Clone, Debug)]
pub struct CollectedSpans {
    /// The `service.name` of the process that recorded it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// `Server`, `Client`, `Producer`, `Consumer` or `Internal`.
    pub kind: String,
    /// 32 hexadecimal digits.
    pub trace: String,
    /// 16 hexadecimal digits.
    pub id: String,
    /// The parent's id; empty if it has none.
    pub parent: String,
    /// The traces and spans that it links to.
    pub links: Vec<(String, String)>,
    /// The attributes as text.
    pub attributes: BTreeMap<String, String>,
    /// True if it ended with an error.
    pub has_failed: bool,
    /// Its duration.
    pub took: Duration,
}

impl CollectedSpans {
    /// The value of an attribute, or an empty text.
    pub fn says(&self, attribute: &str) -> &str {
        self.attributes.get(attribute).map_or("", String::as_str)
    }
}

/// A collector on two ports of its own, for as long as the test's runtime lives.
#[derive(Clone, Debug)]
pub struct Collector {
    /// The address for gRPC.
    pub grpc: SocketAddr,
    /// The address for HTTP.
    pub http: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    spans: Vec<CollectedSpans>,
    metrics: Vec<String>,
    /// The bytes of everything that arrived.
    raw: Vec<u8>,
    /// Time that each answer takes.
    delay: Duration,
    forgets: bool,
}

impl Collector {
    /// Opens a collector that answers at once.
    pub async fn open() -> Self {
        Self::slow(Duration::ZERO).await
    }

    /// Opens a collector that takes `delay` for each export.
    pub async fn slow(delay: Duration) -> Self {
        let grpc = bind().await;
        let http = bind().await;
        let seen = Arc::new(Mutex::new(Seen {
            delay,
            ..Seen::default()
        }));
        let collector = Self {
            grpc: grpc.local_addr().unwrap(),
            http: http.local_addr().unwrap(),
            seen,
        };
        let services = tonic::transport::Server::builder()
            .add_service(
                TraceServiceServer::new(collector.clone()).max_decoding_message_size(64 << 20),
            )
            .add_service(MetricsServiceServer::new(collector.clone()));
        let router = Router::new()
            .route("/v1/traces", post(traces))
            .route("/v1/metrics", post(metrics))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(collector.clone());
        spawn(async move {
            services
                .serve_with_incoming(TcpListenerStream::new(grpc))
                .await
                .unwrap()
        });
        spawn(async move { axum::serve(http, router).await.unwrap() });
        collector
    }

    /// Opens a slow collector that keeps nothing.
    pub async fn forgetful(delay: Duration) -> Self {
        let collector = Self::slow(delay).await;
        collector.seen.lock().unwrap().forgets = true;
        collector
    }

    /// Sets the time for each export from now on.
    pub fn slow_down(&self, delay: Duration) {
        self.seen.lock().unwrap().delay = delay;
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<CollectedSpans> {
        self.seen.lock().unwrap().spans.clone()
    }

    /// The spans of one trace.
    pub fn trace(&self, trace: &str) -> Vec<CollectedSpans> {
        self.spans()
            .into_iter()
            .filter(|span| span.trace == trace)
            .collect()
    }

    /// The names of metrics that arrived.
    pub fn metrics(&self) -> Vec<String> {
        self.seen.lock().unwrap().metrics.clone()
    }

    /// True if this text arrived in any export.
    pub fn has(&self, text: &str) -> bool {
        let seen = self.seen.lock().unwrap();
        seen.raw
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    }

    async fn took(&self) {
        let delay = self.seen.lock().unwrap().delay;
        tokio::time::sleep(delay).await;
    }

    fn keep_spans(&self, request: ExportTraceServiceRequest) {
        let mut seen = self.seen.lock().unwrap();
        if seen.forgets {
            return;
        }
        seen.raw.extend(request.encode_to_vec());
        seen.spans
            .extend(request.resource_spans.into_iter().flat_map(recorded));
    }

    fn keep_metrics(&self, request: ExportMetricsServiceRequest) {
        let mut seen = self.seen.lock().unwrap();
        if seen.forgets {
            return;
        }
        seen.raw.extend(request.encode_to_vec());
        let scopes = request
            .resource_metrics
            .into_iter()
            .flat_map(|resource| resource.scope_metrics);
        seen.metrics.extend(
            scopes
                .flat_map(|scope| scope.metrics)
                .map(|metric| metric.name),
        );
    }
}

async fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

#[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

async fn traces(State(collector): State<Collector>, body: Bytes) {
    collector.took().await;
    collector.keep_spans(ExportTraceServiceRequest::decode(body).unwrap());
}

async fn metrics(State(collector): State<Collector>, body: Bytes) {
    collector.took().await;
    collector.keep_metrics(ExportMetricsServiceRequest::decode(body).unwrap());
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.took().await;
        self.keep_spans(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.took().await;
        self.keep_metrics(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn recorded(resource: ResourceSpans) -> Vec<CollectedSpans> {
    let attributes = words(
        resource
            .resource
            .map(|resource| resource.attributes)
            .unwrap_or_default(),
    );
    let service = attributes.get("service.name").cloned().unwrap_or_default();
    let spans = resource
        .scope_spans
        .into_iter()
        .flat_map(|scope| scope.spans);
    spans.map(|span| in_words(span, &service)).collect()
}

fn in_words(span: Span, service: &str) -> CollectedSpans {
    let kind = span.kind();
    CollectedSpans {
        service: service.to_owned(),
        kind: match kind {
            SpanKind::Unspecified => "Unspecified".to_owned(),
            kind => format!("{kind:?}"),
        },
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        links: span
            .links
            .iter()
            .map(|link| (hex(&link.trace_id), hex(&link.span_id)))
            .collect(),
        has_failed: span
            .status
            .as_ref()
            .is_some_and(|status| status.code() == StatusCode::Error),
        took: Duration::from_nanos(
            span.end_time_unix_nano
                .saturating_sub(span.start_time_unix_nano),
        ),
        attributes: words(span.attributes),
        name: span.name,
    }
}

fn words(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes
        .into_iter()
        .map(|said| (said.key, text(said.value)))
        .collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
