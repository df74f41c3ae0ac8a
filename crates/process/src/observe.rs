//! The outside view of a process: health, metrics and traces.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use queue::FactAccess;
use settings::{OtlpProtocol, OtlpSettings, SecretFile, SettingsTree, TelemetrySettings};
use telemetry::{Collector, Options, Protocol, Sampling};

use crate::pages::{Page, Pages};
use crate::process_report::{AddToReport, ProcessReporter, ReportSources};
use crate::{ProcessLimits, Readiness, Shutdown, gauges, host_name};

/// The settings for health, metrics, traces and reports.
#[derive(Debug)]
pub struct ObservabilitySettings {
    health: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
    drain_after: Duration,
    telemetry: TelemetrySettings,
    sources: ReportSources,
    warnings: Vec<String>,
}

impl ObservabilitySettings {
    /// Reads the settings.
    pub fn read(tree: &SettingsTree) -> anyhow::Result<Self> {
        Ok(Self {
            health: tree.health()?,
            metrics: tree.metrics()?,
            drain_after: tree.drain_after()?,
            telemetry: tree.telemetry()?,
            sources: ReportSources::read(tree),
            warnings: tree.warnings()?,
        })
    }

    /// Answers questions about health and metrics, and records traces and metrics under this
    /// service name from now on. The rest is sent when the process has ended its work.
    pub async fn open(
        &self,
        service: &'static str,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Readiness> {
        let readiness = Readiness::new(shutdown);
        self.warnings
            .iter()
            .for_each(|warning| tracing::warn!("{warning}"));
        shutdown.drain_after(self.drain_after);
        let started = telemetry::start(&self.options(service)?).context("starting telemetry")?;
        let scrape = started.scrape();
        let flushed = started.clone();
        shutdown.before_closing(move || flushed.flush());
        shutdown.on_exit(move || started.finish());
        if let Some(address) = self.health {
            serve(
                address,
                Page::Health(readiness.clone()),
                ["health", "health checks"],
                shutdown,
            )
            .await?;
        }
        if let Some(address) = self.metrics {
            let address = serve(
                address,
                Page::Metrics(scrape),
                ["operator.http", "metrics"],
                shutdown,
            )
            .await?;
            tracing::info!(%address, "metrics at /metrics");
        }
        shutdown.spawn_detached(gauges::show_process(readiness.clone()));
        Ok(readiness)
    }

    /// Reports the state of this process from now on, where all others can read it. `kind` is the
    /// kind of process; `add` adds what only this kind knows.
    pub fn report(
        &self,
        kind: &str,
        facts: Arc<dyn FactAccess>,
        readiness: &Readiness,
        add: Option<AddToReport>,
        shutdown: &Shutdown,
    ) -> ProcessReporter {
        ProcessReporter::start(
            kind,
            self.sources.clone(),
            facts,
            readiness.clone(),
            add,
            shutdown,
        )
    }

    fn options(&self, service: &'static str) -> anyhow::Result<Options> {
        let traces = self.telemetry.traces;
        let sampling = Sampling {
            share: traces.sample_ratio,
            keep_failures: traces.keep_failures,
            trust_callers: traces.trust_callers,
        };
        let otlp = self.telemetry.otlp.as_ref();
        Ok(Options {
            service,
            instance: instance(),
            collector: otlp.map(collector).transpose()?,
            sampling,
            send_metrics_every: otlp.map_or(Duration::from_secs(30), |otlp| otlp.metrics_interval),
        })
    }
}

async fn serve(
    address: SocketAddr,
    page: Page,
    [key, what]: [&str; 2],
    shutdown: &Shutdown,
) -> anyhow::Result<SocketAddr> {
    let pages = Pages::bind(address, page, ProcessLimits::read());
    let pages = pages
        .with_context(|| format!("fluent-connect.{key}: listening on {address} for {what}"))?;
    let address = pages.address()?;
    shutdown.spawn_detached(pages.serve(shutdown.clone()));
    Ok(address)
}

fn collector(otlp: &OtlpSettings) -> anyhow::Result<Collector> {
    let headers = otlp
        .headers
        .iter()
        .map(|(name, secret)| Ok((name.to_lowercase(), first_line(secret)?)));
    Ok(Collector {
        endpoint: otlp.endpoint.clone(),
        protocol: match otlp.protocol {
            OtlpProtocol::Grpc => Protocol::Grpc,
            OtlpProtocol::Http => Protocol::Http,
        },
        headers: headers.collect::<anyhow::Result<_>>()?,
        ca: otlp.ca.as_deref().map(read).transpose()?,
        timeout: otlp.timeout,
    })
}

fn first_line(secret: &SecretFile) -> anyhow::Result<String> {
    let text = String::from_utf8(read(&secret.file)?);
    let text = text.with_context(|| format!("{} is not text", secret.file.display()))?;
    let first = text.lines().next().unwrap_or_default();
    // Editors on Windows begin files with a byte order mark.
    Ok(first.trim_start_matches('\u{feff}').trim().to_owned())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    settings::read_pem(path).with_context(|| format!("reading {}", path.display()))
}

/// A name that tells the processes of a service apart.
fn instance() -> String {
    format!("{}:{}", host_name(), std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_the_first_line_without_its_byte_order_mark() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "\u{feff}s3cret\r\nmore").unwrap();
        assert_eq!(first_line(&SecretFile { file }).unwrap(), "s3cret");
    }
}
