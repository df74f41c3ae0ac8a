//! Start and end of telemetry in a process.

use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanProcessor};
use prometheus::Registry;

use crate::error::StartError;
use crate::export::Collector;
use crate::metrics::Scrape;
use crate::sampling::Sampling;

/// Spans that may wait for the collector, about 1 KiB each. Beyond it they are dropped and
/// counted, since an event must never wait for its trace.
const WAITING_SPANS: usize = 16 * 1024;

/// Spans in one export.
const BATCH: usize = 2 * 1024;

/// Time for which spans are gathered before they are sent.
const GATHER: Duration = Duration::from_secs(2);

/// Longest time for the last spans and metrics when the process ends.
const LAST_EXPORT: Duration = Duration::from_secs(3);

/// The settings of a process's telemetry.
#[derive(Clone, Debug)]
pub struct Options {
    /// `service.name`.
    pub service: &'static str,
    /// `service.instance.id`: tells the processes of a service apart.
    pub instance: String,
    /// The collector of traces and metrics, if there is one.
    pub collector: Option<Collector>,
    /// The choice of traces that are recorded.
    pub sampling: Sampling,
    /// Interval at which metrics are sent.
    pub send_metrics_every: Duration,
}

/// The recording of spans in this process.
#[derive(Debug, Default)]
pub(crate) struct Tracing {
    pub(crate) sampling: Sampling,
    pub(crate) processor: Option<BatchSpanProcessor>,
}

impl Tracing {
    pub(crate) fn record(&self, span: SpanData) {
        if let Some(processor) = &self.processor {
            processor.on_end(span);
        }
    }
}

/// One for the process, since spans begin everywhere.
static TRACING: OnceLock<Tracing> = OnceLock::new();

/// Used before the start, and in processes without telemetry.
static NOT_RECORDING: LazyLock<Tracing> = LazyLock::new(Tracing::default);

pub(crate) fn tracing_now() -> &'static Tracing {
    TRACING.get().unwrap_or_else(|| &NOT_RECORDING)
}

/// Telemetry that was started, until [`TelemetryHandle::finish`]. Clones share it.
#[derive(Clone, Debug)]
pub struct TelemetryHandle {
    meters: SdkMeterProvider,
    scrape: Scrape,
}

/// Starts to record in this process. Needs a runtime, which must outlive [`TelemetryHandle::finish`].
/// After a second call, spans still go to the first one's collector.
pub fn start(options: &Options) -> Result<TelemetryHandle, StartError> {
    let resource = resource(options);
    // Metrics first: the processor of spans counts with them.
    let registry = Registry::new();
    let scraped = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .scope_info_enabled(false)
        .build()?;
    let mut meters = SdkMeterProvider::builder()
        .with_resource(resource.clone())
        .with_reader(scraped);
    if let Some(collector) = &options.collector {
        let reader =
            PeriodicReader::builder(collector.metrics()?).with_interval(options.send_metrics_every);
        meters = meters.with_reader(reader.build());
    }
    let meters = meters.build();
    opentelemetry::global::set_meter_provider(meters.clone());
    let processor = options
        .collector
        .as_ref()
        .map(|collector| processor(collector, &resource))
        .transpose()?;
    let _ = TRACING.set(Tracing {
        sampling: options.sampling,
        processor,
    });
    Ok(TelemetryHandle {
        meters,
        scrape: Scrape::new(registry),
    })
}

fn resource(options: &Options) -> Resource {
    // OTEL_RESOURCE_ATTRIBUTES adds to these.
    Resource::builder()
        .with_service_name(options.service)
        .with_attributes([
            KeyValue::new("service.namespace", "fluent-webhooks"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", options.instance.clone()),
        ])
        .build()
}

fn processor(collector: &Collector, resource: &Resource) -> Result<BatchSpanProcessor, StartError> {
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(WAITING_SPANS)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(GATHER);
    let mut processor = BatchSpanProcessor::builder(collector.spans()?)
        .with_batch_config(batches.build())
        .build();
    processor.set_resource(resource);
    Ok(processor)
}

impl TelemetryHandle {
    /// The metrics as they are now, for Prometheus.
    pub fn scrape(&self) -> Scrape {
        self.scrape.clone()
    }

    /// Sends what was gathered so far. Blocks, for seconds if no collector answers.
    pub fn flush(&self) {
        if let Some(processor) = &tracing_now().processor {
            let _ = processor.force_flush();
        }
        let _ = self.meters.force_flush();
    }

    /// Sends the rest within a few seconds. Blocks.
    pub fn finish(self) {
        if let Some(processor) = &tracing_now().processor {
            let _ = processor.shutdown_with_timeout(LAST_EXPORT);
        }
        let _ = self.meters.shutdown_with_timeout(LAST_EXPORT);
    }
}
