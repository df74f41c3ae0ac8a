//! From settings to what commands and stages work with.

use std::path::Path;
use std::sync::Arc;

use event_model::SystemClock;
use gateway::Ports;
use queue::{EventQueue, Stores};
use settings::{Gateway, Tree};
use verifier::{Verifier, WebhookVerifier};

/// The settings, with what the environment overrides.
pub(crate) fn tree(config: &Path) -> anyhow::Result<Tree> {
    // What is not UTF-8 can't be meant for us.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(Tree::load(config, environment)?)
}

/// The stores of the queue, beside whoever serves it.
pub(crate) fn stores(config: &Path) -> anyhow::Result<Box<dyn Stores>> {
    let queue = tree(config)?.queue()?;
    Ok(adapters::open_stores(&queue)?)
}

pub(crate) fn verifier(gateway: &Gateway) -> Arc<dyn Verifier> {
    Arc::new(WebhookVerifier::new(Arc::clone(&gateway.keys), gateway.signatures.clone()))
}

pub(crate) fn ports(gateway: &Gateway, queue: Arc<dyn EventQueue>) -> Ports {
    let signatures = &gateway.signatures;
    Ports {
        verifier: verifier(gateway),
        accounts: Arc::new(gateway.accounts.clone()),
        queue,
        clock: Arc::new(SystemClock),
        signature_headers: signatures
            .sha512
            .iter()
            .chain(&signatures.md5)
            .map(|name| name.to_lowercase())
            .collect(),
        path: gateway.path.as_str().into(),
        malformed: gateway.malformed,
    }
}
