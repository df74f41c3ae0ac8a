//! Error of the start of telemetry.

use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::error::OTelSdkError;

/// The reason why telemetry can't be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A header that is not valid.
    #[error("the collector's header `{0}`: a name or value that no header can have")]
    Header(String),
    /// An endpoint or certificate that can't be used over gRPC.
    #[error("the collector's endpoint")]
    Channel(#[from] tonic::transport::Error),
    /// An endpoint or certificate that can't be used over HTTP.
    #[error("the collector's endpoint")]
    Client(#[from] reqwest::Error),
    /// Settings that the exporter refuses.
    #[error("the exporter")]
    Exporter(#[from] ExporterBuildError),
    /// Metrics that can't be set up.
    #[error("the metrics")]
    Metrics(#[from] OTelSdkError),
}
