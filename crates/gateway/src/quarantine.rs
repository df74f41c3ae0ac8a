//! The way of genuine bodies that are not events: into the quarantine, and if that is full, into
//! the store of rejected webhooks.

use event_model::{Headers, Inbound};
use queue::{Quarantined, QueueError, RejectedWebhook};
use telemetry::metrics;

use crate::Ports;

/// The reason that a person sees for such a body in the store of rejected webhooks.
const REASON: &str = "quarantine-full";

/// Stores the body, and returns once a crash does not lose it. A full quarantine is no reason to
/// answer 503: the sender would try again with the same body, and then give up.
pub(crate) async fn keep(
    ports: &Ports,
    body: &Quarantined,
    headers: &Headers,
) -> Result<(), QueueError> {
    match ports.intake.quarantine(body.clone()).await {
        Err(QueueError::Full) => {}
        decided => return decided,
    }
    let inbound = Inbound {
        body: body.body.clone(),
        headers: headers.clone(),
        received_at: body.received_at,
    };
    // A body that names no account is still Fluent's: its signature proves it.
    let account = ports.accounts.claimed_by(&body.body).unwrap_or_default();
    let webhook = RejectedWebhook {
        id: 0,
        inbound,
        reason: REASON.to_owned(),
        account,
    };
    ports.intake.capture_rejected(webhook).await?;
    metrics::QUARANTINE_FULL.add(1, []);
    tracing::error!(
        "the quarantine is full: a genuine body is held with what was refused, where the oldest goes; `fluent-webhooks quarantine list`"
    );
    Ok(())
}
