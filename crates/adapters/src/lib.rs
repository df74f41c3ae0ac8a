//! Opens the queue that the settings name. The only crate that knows every
//! queue adapter by name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use event_model::Clock;
use queue::{EventQueue, QueueError, Stores};
use queue_embedded::{Beside, Embedded, OpenError, Options, Retention, Salvaged};
use settings::{QueueSettings, RetentionSettings};

/// A queue to be served by this process, and what was found on the way.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The queue.
    pub queue: Arc<dyn EventQueue>,
    /// Where the previous store went, if it could not be trusted.
    pub set_aside: Option<PathBuf>,
}

/// Why a queue's stores can't be read.
#[derive(Debug, thiserror::Error)]
#[error("opening the queue file {path}; has `fluent-webhooks serve` run with these settings?")]
pub struct NoStores {
    path: PathBuf,
    #[source]
    source: queue::BoxError,
}

/// Opens the queue for serving it.
pub fn open(settings: &QueueSettings, clock: Arc<dyn Clock>) -> Result<Opened, OpenError> {
    let queue = Embedded::open(options(settings), clock)?;
    let set_aside = queue.set_aside().cloned();
    Ok(Opened { queue: Arc::new(queue), set_aside })
}

/// Opens the stores alone, beside whoever serves the queue.
pub fn open_stores(settings: &QueueSettings) -> Result<Box<dyn Stores>, NoStores> {
    match Beside::open(&settings.path, None) {
        Ok(beside) => Ok(Box::new(beside)),
        Err(source) => Err(NoStores { path: settings.path.clone(), source: source.into() }),
    }
}

/// Publishes what is unsettled in a file that was set aside.
pub async fn salvage(file: &Path, queue: &dyn EventQueue) -> Result<Salvaged, QueueError> {
    queue_embedded::salvage(file, queue).await
}

fn options(settings: &QueueSettings) -> Options {
    let RetentionSettings { age, bytes } = settings.retention;
    Options {
        path: settings.path.clone(),
        dedup_window: settings.dedup_window.0,
        retention: Retention { age: age.0, bytes: bytes.0 },
    }
}
