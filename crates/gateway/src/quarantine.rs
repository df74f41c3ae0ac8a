//! Where a genuine body goes that is not an event: into the quarantine, and where that is
//! full, into the hold for what was refused.

use event_model::{Headers, Inbound};
use queue::{Quarantined, QueueError, RefusedWebhook};
use telemetry::metrics;

use crate::Ports;

/// Why it is in the hold: a person reads it there.
const REASON: &str = "quarantine-full";

/// Keeps the body, and returns when a crash does not lose it. A full quarantine is no reason
/// to answer 503: the sender would come again with the same body, and then give it up.
pub(crate) async fn keep(ports: &Ports, body: &Quarantined, headers: &Headers) -> Result<(), QueueError> {
    match ports.intake.quarantine(body.clone()).await {
        Err(QueueError::Full) => {}
        decided => return decided,
    }
    let inbound =
        Inbound { body: body.body.clone(), headers: headers.clone(), received_at: body.received_at };
    // One that names nobody is Fluent's all the same: its signature says so.
    let account = ports.accounts.claimed_by(&body.body).unwrap_or_default();
    let webhook = RefusedWebhook { id: 0, inbound, reason: REASON.to_owned(), account };
    ports.intake.capture_rejected(webhook).await?;
    metrics::QUARANTINE_FULL.add(1, []);
    tracing::error!(
        "the quarantine is full: a genuine body is held with what was refused, where the oldest goes; `fluent-webhooks quarantine list`"
    );
    Ok(())
}
