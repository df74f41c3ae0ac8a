//! Opens the queue that the settings name. The only crate that knows every
//! queue adapter by name.

mod nats;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use event_model::Clock;
use history_index::Index;
use queue::{BoxError, HistoryIndex, Intake, Lifecycle, QueueError, Source, Stores, Upstream};
use queue_embedded::{Embedded, Options, Retention, SalvageReport, SqliteStores};
use queue_nats::JetStream;
use queue_spooled::Spooled;
use settings::{
    EmbeddedSettings, JetStreamSettings, QueueSettings, RetentionSettings, SpoolSettings,
};

pub use crate::nats::nats_options;
pub use queue_embedded::BackupReport;
pub use queue_nats::cluster;
pub use queue_spooled::{DrainReport, SpoolState, spool_state};

/// A queue that this process serves, by its roles. A caller gets the roles that it needs.
#[derive(Clone, Debug)]
pub struct OpenedQueue {
    /// Makes arrivals durable: in the spool first, if there is one.
    pub intake: Arc<dyn Intake>,
    /// The queue itself, as a spool uses it.
    pub upstream: Arc<dyn Upstream>,
    /// Gives out deliveries.
    pub source: Arc<dyn Source>,
    /// The stores beside the events.
    pub stores: Arc<dyn Stores>,
    /// Watches and closes the whole queue.
    pub lifecycle: Arc<dyn Lifecycle>,
    /// The path of the previous store, if it could not be trusted and was quarantined.
    pub set_aside: Option<PathBuf>,
}

impl OpenedQueue {
    fn of<Q: Upstream + Source + 'static>(
        queue: &Arc<Q>,
        stores: Arc<dyn Stores>,
        set_aside: Option<PathBuf>,
    ) -> Self {
        Self {
            intake: Arc::clone(queue) as _,
            upstream: Arc::clone(queue) as _,
            source: Arc::clone(queue) as _,
            stores,
            lifecycle: Arc::clone(queue) as _,
            set_aside,
        }
    }
}

/// The reason why a queue or its stores can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("opening {what}")]
pub struct OpenError {
    what: String,
    #[source]
    source: BoxError,
}

fn failed(what: impl Into<String>, source: impl Into<BoxError>) -> OpenError {
    OpenError {
        what: what.into(),
        source: source.into(),
    }
}

/// Opens the queue for serving it. `name` is the name of this process at the queue's servers.
pub async fn open(
    settings: &QueueSettings,
    name: &str,
    clock: Arc<dyn Clock>,
) -> Result<OpenedQueue, OpenError> {
    match settings {
        QueueSettings::Embedded(settings) => {
            let queue = Embedded::open(options(settings), clock)
                .map_err(|error| failed("the queue file", error))?;
            let set_aside = queue.damaged_file().cloned();
            let queue = Arc::new(queue);
            Ok(OpenedQueue::of(&queue, Arc::clone(&queue) as _, set_aside))
        }
        QueueSettings::JetStream(settings) => {
            let queue = JetStream::open(nats_options(settings, name), clock).await;
            let queue = queue.map_err(|error| failed("the connection to NATS", error))?;
            let stores = Arc::clone(queue.stores());
            Ok(OpenedQueue::of(&Arc::new(queue), stores, None))
        }
    }
}

/// Opens a gateway's queue, with the spool before it if there is one.
pub async fn open_for_gateway(
    settings: &QueueSettings,
    spool: Option<&SpoolSettings>,
    name: &str,
    clock: Arc<dyn Clock>,
) -> Result<OpenedQueue, OpenError> {
    let opened = open(settings, name, Arc::clone(&clock)).await?;
    let Some(spool) = spool else {
        return Ok(opened);
    };
    let spooled = Spooled::open(Arc::clone(&opened.upstream), spool_options(spool), clock);
    let spooled = spooled.map_err(|error| failed("the spool", error))?;
    let set_aside = spooled.damaged_file().cloned();
    let spooled = Arc::new(spooled);
    Ok(OpenedQueue {
        intake: Arc::clone(&spooled) as _,
        lifecycle: spooled,
        set_aside,
        ..opened
    })
}

/// Opens only the stores, beside the processes that serve the queue. `with_index` is for callers
/// that read the history: only they need a folder that can be written to.
pub async fn open_stores(
    settings: &QueueSettings,
    with_index: bool,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Stores>, OpenError> {
    match settings {
        QueueSettings::Embedded(settings) => match SqliteStores::open(&settings.path, None) {
            Ok(beside) => Ok(Arc::new(beside)),
            Err(error) => {
                let path = settings.path.display();
                let hint = "has `fluent-webhooks serve` run with these settings?";
                Err(failed(format!("the queue file {path}; {hint}"), error))
            }
        },
        QueueSettings::JetStream(settings) => {
            let options = queue_nats::Options {
                index: if with_index { index(settings)? } else { None },
                ..nats_options(settings, "commands")
            };
            let stores = queue_nats::open_stores(&options, clock).await;
            let servers = settings.servers.join(", ");
            stores.map_err(|error| failed(format!("the streams on {servers}"), error))
        }
    }
}

fn index(settings: &JetStreamSettings) -> Result<Option<Arc<dyn HistoryIndex>>, OpenError> {
    let Some(path) = &settings.index else {
        return Ok(None);
    };
    let index = Index::open(path)
        .map_err(|error| failed(format!("the index {}", path.display()), error))?;
    Ok(Some(Arc::new(index)))
}

/// Publishes the unsettled events of a quarantined file.
pub async fn salvage(file: &Path, intake: &dyn Intake) -> Result<SalvageReport, QueueError> {
    queue_embedded::salvage(file, intake).await
}

/// Copies the embedded queue's file, beside the process that serves it.
///
/// # Errors
/// If the file can't be read, or the copy not written.
pub fn backup_queue(
    settings: &EmbeddedSettings,
    to: &Path,
    clock: &dyn Clock,
) -> Result<BackupReport, OpenError> {
    let copied = queue_embedded::backup(&settings.path, to, clock);
    copied.map_err(|error| failed(format!("{} to copy it", settings.path.display()), error))
}

/// Copies a gateway's spool, beside the process that serves it.
///
/// # Errors
/// If the file can't be read, or the copy not written.
pub fn backup_spool(settings: &SpoolSettings, to: &Path) -> Result<SpoolState, OpenError> {
    let copied = queue_spooled::backup(&settings.path, to);
    copied.map_err(|error| failed(format!("{} to copy it", settings.path.display()), error))
}

/// Empties the spool of a gateway that is gone.
pub async fn drain(
    path: &Path,
    upstream: Arc<dyn Upstream>,
    clock: Arc<dyn Clock>,
) -> Result<DrainReport, OpenError> {
    let drained = queue_spooled::drain(path, upstream, clock).await;
    drained.map_err(|error| failed(format!("and emptying the spool {}", path.display()), error))
}

fn options(settings: &EmbeddedSettings) -> Options {
    Options {
        path: settings.path.clone(),
        dedup_window: settings.dedup_window,
        retention: retention(settings.retention),
    }
}

fn retention(settings: RetentionSettings) -> Retention {
    Retention {
        age: settings.age,
        bytes: settings.bytes.0,
    }
}

/// The largest rate, in events a second, at which the embedded queue knows ids for all of
/// `window`.
pub fn rate_held(settings: RetentionSettings, window: Duration) -> f64 {
    retention(settings).rate_held(window)
}

fn spool_options(settings: &SpoolSettings) -> queue_spooled::Options {
    queue_spooled::Options {
        path: settings.path.clone(),
        bytes: settings.bytes.0,
        keep: settings.keep,
        wait_for_queue: settings.wait_for_queue,
    }
}
