//! From settings to what commands work with.

use std::path::Path;
use std::sync::Arc;

use event_model::SystemClock;
use queue::Stores;
use settings::{Gateway, Tree};
use verifier::{Verifier, WebhookVerifier};

/// The settings, with what the environment overrides.
pub(crate) fn tree(config: &Path) -> anyhow::Result<Tree> {
    service::tree(config)
}

/// The stores of the queue, beside whoever serves it.
pub(crate) async fn stores(config: &Path) -> anyhow::Result<Box<dyn Stores>> {
    let queue = tree(config)?.queue()?;
    Ok(adapters::open_stores(&queue, Arc::new(SystemClock)).await?)
}

pub(crate) fn verifier(gateway: &Gateway) -> Arc<dyn Verifier> {
    Arc::new(WebhookVerifier::new(Arc::clone(&gateway.keys), gateway.signatures.clone()))
}
