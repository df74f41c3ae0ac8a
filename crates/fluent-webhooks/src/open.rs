//! The settings and stores that commands work with.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use console::{ConsoleServer, Site};
use event_model::SystemClock;
use operator::{Operator, ReadSettings};
use process::Shutdown;
use queue::Stores;
use settings::{QueueSettings, SettingsTree};

/// Reads the settings, with what the environment overrides.
pub(crate) fn tree(config: &Path) -> anyhow::Result<SettingsTree> {
    process::tree(config)
}

/// Where commands work that open this queue themselves, for questions and results.
pub(crate) fn place(queue: &QueueSettings) -> String {
    match queue {
        QueueSettings::Embedded(embedded) => format!("on the queue {}", embedded.path.display()),
        QueueSettings::JetStream(cluster) => {
            format!("on the queue of {}", cluster.servers.join(", "))
        }
    }
}

/// Opens the stores of the queue, beside the processes that serve it.
pub(crate) async fn stores(config: &Path) -> anyhow::Result<Arc<dyn Stores>> {
    let queue = tree(config)?.queue()?;
    Ok(queues::open_stores(&queue, false, Arc::new(SystemClock)).await?)
}

/// Opens the stores so that what came is verified as a dispatcher does.
pub(crate) async fn verifying_stores(tree: &SettingsTree) -> anyhow::Result<Arc<dyn Stores>> {
    let queue = tree.queue_to_deliver()?;
    Ok(queues::open_stores(&queue, false, Arc::new(SystemClock)).await?)
}

/// Opens the stores with the index by which a cluster's events are found.
pub(crate) async fn stores_with_index(config: &Path) -> anyhow::Result<Arc<dyn Stores>> {
    let queue = tree(config)?.queue()?;
    Ok(queues::open_stores(&queue, true, Arc::new(SystemClock)).await?)
}

/// A function that reads the settings as they are at each call.
pub(crate) fn settings(config: &Path) -> ReadSettings {
    let config = config.to_owned();
    Arc::new(move || process::tree(&config))
}

/// Serves the console over this operator.
pub(crate) fn serve_console(
    console: ConsoleServer,
    operator: Operator,
    tree: &SettingsTree,
    config: &Path,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let site = Site::read(tree)?;
    console.serve(
        operator,
        settings(config),
        site,
        Arc::new(SystemClock),
        shutdown,
    )
}

/// Reads a webhook's body from a file, or from standard input for `-`.
pub(crate) fn body(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.as_os_str() != "-" {
        return std::fs::read(path).with_context(|| format!("reading body {}", path.display()));
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .context("reading the body from standard input")?;
    if bytes.is_empty() {
        bail!("standard input was empty: expected the webhook's body");
    }
    Ok(bytes)
}
