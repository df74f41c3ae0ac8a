//! `fluent-connect.telemetry`: the traces and metrics that are recorded, and where they are sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::Value;

use crate::error::SettingsError;
use crate::plaintext::{EXPOSED, is_exposed};
use crate::tree::SettingsTree;
use crate::values::DurationText;

const TELEMETRY: [&str; 2] = ["fluent-connect", "telemetry"];

/// Most headers for a collector.
const MAX_HEADERS: usize = 16;

/// Longest time for an export: spans wait meanwhile, and some may be dropped.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);

/// The range of the interval at which metrics are sent: less often is of no use to an alert.
const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_mins(10);

/// `fluent-connect.telemetry`: what is recorded, and where it goes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct TelemetrySettings {
    /// The collector. Left out, nothing is sent.
    pub otlp: Option<OtlpSettings>,
    /// Which traces are recorded.
    pub traces: TracesSettings,
}

/// `fluent-connect.telemetry.otlp`: a collector.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OtlpSettings {
    /// `http://` or `https://`, host and port.
    pub endpoint: String,
    /// The protocol: `grpc` or `http`.
    #[serde(default)]
    pub protocol: OtlpProtocol,
    /// Headers of every export; their values are in files.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretFile>,
    /// Whether `headers` may go to another host over `http://`, where anybody on the way
    /// can read them.
    #[serde(default)]
    pub allow_plaintext_credentials: bool,
    /// PEM: the collector's certificate authority, instead of the public ones.
    pub ca: Option<PathBuf>,
    /// How long an export may take; at most 60s.
    #[serde(default = "timeout")]
    #[schemars(with = "DurationText")]
    #[serde(with = "crate::values::duration")]
    pub timeout: Duration,
    /// Time between two exports of metrics; 1s to 10m.
    #[serde(default = "metrics_interval")]
    #[schemars(with = "DurationText")]
    #[serde(with = "crate::values::duration")]
    pub metrics_interval: Duration,
}

fn timeout() -> Duration {
    Duration::from_secs(5)
}

fn metrics_interval() -> Duration {
    Duration::from_secs(30)
}

/// `fluent-connect.telemetry.otlp.protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OtlpProtocol {
    /// gRPC, usually port 4317.
    #[default]
    Grpc,
    /// Protobuf over HTTP, usually port 4318.
    Http,
}

/// A value that is in a file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretFile {
    /// The file: its first line is the value.
    pub file: PathBuf,
}

/// `fluent-connect.telemetry.traces`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct TracesSettings {
    /// The share of traces that is recorded, from 0 to 1.
    #[serde(deserialize_with = "share")]
    pub sample_ratio: f64,
    /// Whether to record failed attempts of traces that are not sampled, too.
    pub keep_failures: bool,
    /// Whether to continue the trace of a request's `traceparent` header, with its sampling
    /// decision; otherwise it becomes a link. Only for gateways behind a proxy of your own.
    pub trust_callers: bool,
}

/// Reads the share. A number in an unusual spelling, such as `0.10`, is a text in the tree.
fn share<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let expected = || Error::custom("expected a number from 0 to 1, such as 0.1");
    match Value::deserialize(from)? {
        Value::Number(number) => number.as_f64().ok_or_else(expected),
        Value::String(text) => text.parse().map_err(|_| expected()),
        _ => Err(expected()),
    }
}

impl Default for TracesSettings {
    fn default() -> Self {
        Self {
            sample_ratio: 0.1,
            keep_failures: true,
            trust_callers: false,
        }
    }
}

impl SettingsTree {
    /// Reads the telemetry's settings.
    pub fn telemetry(&self) -> Result<TelemetrySettings, SettingsError> {
        let mut telemetry: TelemetrySettings = self.section(&TELEMETRY)?;
        if !(0.0..=1.0).contains(&telemetry.traces.sample_ratio) {
            let why = "expected a share of all traces, from 0 to 1";
            return Err(self.invalid(&[TELEMETRY[0], TELEMETRY[1], "traces", "sample-ratio"], why));
        }
        if let Some(otlp) = &mut telemetry.otlp {
            self.check_collector(otlp)?;
            let folder = self.folder();
            otlp.ca = otlp.ca.as_ref().map(|ca| folder.join(ca));
            for secret in otlp.headers.values_mut() {
                secret.file = folder.join(&secret.file);
            }
        }
        Ok(telemetry)
    }

    /// The address for Prometheus to scrape, if there is one.
    pub fn metrics(&self) -> Result<Option<SocketAddr>, SettingsError> {
        let path = ["fluent-connect", "operator", "http"];
        self.read(&path, &self.value_at(&path))
    }

    fn check_collector(&self, otlp: &OtlpSettings) -> Result<(), SettingsError> {
        let at = |key: &'static str| [TELEMETRY[0], TELEMETRY[1], "otlp", key];
        let is_url = ["http://", "https://"].iter().any(|scheme| {
            let host = otlp.endpoint.strip_prefix(scheme);
            host.is_some_and(|host| !host.is_empty() && !host.contains(['@', '?', '#', ' ']))
        });
        if !is_url {
            return Err(self.invalid(
                &at("endpoint"),
                "expected http:// or https://, a host and a port",
            ));
        }
        if otlp.timeout.is_zero() || otlp.timeout > MAX_TIMEOUT {
            return Err(self.invalid(&at("timeout"), "expected up to 60s: spans wait meanwhile"));
        }
        if !INTERVALS.contains(&otlp.metrics_interval) {
            return Err(self.invalid(&at("metrics-interval"), "expected 1s to 10m"));
        }
        if otlp.headers.len() > MAX_HEADERS {
            return Err(self.invalid(&at("headers"), "expected at most 16"));
        }
        let is_sent = !otlp.headers.is_empty() && !otlp.allow_plaintext_credentials;
        if is_sent && is_exposed(&otlp.endpoint) {
            return Err(self.invalid(&at("headers"), EXPOSED));
        }
        Ok(())
    }
}
