//! Export of traces and metrics to a collector, by OTLP.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as Exporter};
use tokio::runtime::Handle;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::error::StartError;
use crate::metrics;

/// A collector of traces and metrics.
#[derive(Clone)]
pub struct Collector {
    /// `http://` or `https://`, host and port; over HTTP, `/v1/traces` and `/v1/metrics`
    /// are added.
    pub endpoint: String,
    /// The protocol to speak.
    pub protocol: Protocol,
    /// Headers of every export: names in lowercase, and values that may be secret.
    pub headers: Vec<(String, String)>,
    /// PEM: the authorities of the collector's certificate, instead of the web's.
    pub ca: Option<Vec<u8>>,
    /// Longest time for an export.
    pub timeout: Duration,
}

/// The protocol that a collector speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, usually port 4317.
    Grpc,
    /// Protobuf over HTTP, usually port 4318.
    Http,
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Collector({}, {:?})", self.endpoint, self.protocol)
    }
}

impl Collector {
    pub(crate) fn spans(&self) -> Result<ObservedExporter<SpanExporter>, StartError> {
        let built = match self.protocol {
            Protocol::Grpc => SpanExporter::builder()
                .with_tonic()
                .with_channel(self.channel()?)
                .with_metadata(self.metadata()?)
                .with_timeout(self.timeout)
                .build(),
            Protocol::Http => SpanExporter::builder()
                .with_http()
                .with_http_client(self.client()?)
                .with_endpoint(self.path("v1/traces"))
                .with_headers(self.headers())
                .with_timeout(self.timeout)
                .build(),
        };
        Ok(ObservedExporter::new("traces", built?))
    }

    pub(crate) fn metrics(&self) -> Result<ObservedExporter<MetricExporter>, StartError> {
        let built = match self.protocol {
            Protocol::Grpc => MetricExporter::builder()
                .with_tonic()
                .with_channel(self.channel()?)
                .with_metadata(self.metadata()?)
                .with_timeout(self.timeout)
                .build(),
            Protocol::Http => MetricExporter::builder()
                .with_http()
                .with_http_client(self.client()?)
                .with_endpoint(self.path("v1/metrics"))
                .with_headers(self.headers())
                .with_timeout(self.timeout)
                .build(),
        };
        Ok(ObservedExporter::new("metrics", built?))
    }

    fn path(&self, path: &str) -> String {
        format!("{}/{path}", self.endpoint.trim_end_matches('/'))
    }

    fn headers(&self) -> HashMap<String, String> {
        self.headers.iter().cloned().collect()
    }

    fn metadata(&self) -> Result<MetadataMap, StartError> {
        let mut metadata = MetadataMap::new();
        for (name, value) in &self.headers {
            let key = name
                .parse::<MetadataKey<_>>()
                .map_err(|_| StartError::Header(name.clone()))?;
            let mut value =
                MetadataValue::try_from(value).map_err(|_| StartError::Header(name.clone()))?;
            value.set_sensitive(true);
            metadata.insert(key, value);
        }
        Ok(metadata)
    }

    /// A channel that connects on first use, and again whenever the connection breaks.
    fn channel(&self) -> Result<Channel, StartError> {
        let endpoint = Endpoint::from_shared(self.endpoint.clone())?;
        let endpoint = match self.endpoint.starts_with("https://") {
            true => endpoint.tls_config(self.tls())?,
            false => endpoint,
        };
        Ok(endpoint
            .timeout(self.timeout)
            .connect_timeout(self.timeout)
            .connect_lazy())
    }

    fn tls(&self) -> ClientTlsConfig {
        match &self.ca {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
            None => ClientTlsConfig::new().with_enabled_roots(),
        }
    }

    fn client(&self) -> Result<OnRuntime, StartError> {
        let mut builder = reqwest::Client::builder().timeout(self.timeout).no_proxy();
        if let Some(pem) = &self.ca {
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
        }
        Ok(OnRuntime {
            client: builder.build()?,
            runtime: Handle::current(),
        })
    }
}

/// An HTTP client that runs on our runtime: the exporters have threads of their own.
#[derive(Debug)]
struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

#[tonic::async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime
            .spawn(async move { client.send_bytes(request).await })
            .await?
    }
}

/// An exporter whose failures are counted, and logged once each time they begin.
#[derive(Debug)]
pub(crate) struct ObservedExporter<E> {
    signal: &'static str,
    exporter: E,
    fails: Arc<AtomicBool>,
}

impl<E> ObservedExporter<E> {
    fn new(signal: &'static str, exporter: E) -> Self {
        Self {
            signal,
            exporter,
            fails: Arc::default(),
        }
    }

    fn ended(&self, result: OTelSdkResult) -> OTelSdkResult {
        let signal = self.signal;
        match &result {
            Ok(()) if self.fails.swap(false, Ordering::AcqRel) => {
                tracing::info!(signal, "the collector is back");
            }
            Ok(()) => {}
            Err(error) => {
                metrics::EXPORTS_FAILED.add(1, [signal.into()]);
                if !self.fails.swap(true, Ordering::AcqRel) {
                    tracing::warn!(signal, %error, "the collector takes nothing: it is dropped and counted, and events go on");
                }
            }
        }
        result
    }
}

impl<E: Exporter> Exporter for ObservedExporter<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.ended(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for ObservedExporter<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.ended(self.exporter.export(metrics).await)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
