//! The way of genuine bodies that are not events: into the quarantine, and if that is full, into
//! the store of rejected webhooks.

use std::sync::Arc;

use event_model::{Accounts, Headers, Inbound, Proof, TraceParent};
use process::RefusalLog;
use queue::{QuarantineOverflow, Quarantined, QueueError, RejectedWebhook};
use telemetry::metrics;
use verifier::Signatures;

use crate::Ports;

/// The reason that a person sees for such a body in the store of rejected webhooks.
const REASON: &str = "quarantine-full";

/// Stores the body, and returns once a crash does not lose it. A full quarantine is no reason to
/// answer 503: the sender would try again with the same body, and then give up.
pub(crate) async fn keep(
    ports: &Ports,
    body: &Quarantined,
    headers: &Headers,
    trace: TraceParent,
) -> Result<(), QueueError> {
    match ports.intake.quarantine(body.clone()).await {
        Err(QueueError::Full) => {}
        decided => return decided,
    }
    let webhook = rejected(&ports.accounts, body, headers.clone());
    ports.intake.capture_rejected(webhook).await?;
    tell(&ports.senders.refusals, Some(trace));
    Ok(())
}

/// The way of bodies that a spool had accepted before the quarantine was full.
pub(crate) struct SpooledOverflow {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) signatures: Signatures,
    pub(crate) refusals: RefusalLog,
}

impl QuarantineOverflow for SpooledOverflow {
    /// The spool keeps no headers, so the signature is put under the name that it may have come
    /// by: any of them is read again.
    fn rejected(&self, body: &Quarantined) -> RejectedWebhook {
        let name = match body.proof {
            Proof::Signed(algorithm) => self.signatures.headers(algorithm).first(),
            Proof::Api => None,
        };
        let headers = name
            .map(|name| (name.to_lowercase(), body.signature.as_str()))
            .into_iter()
            .collect();
        rejected(&self.accounts, body, headers)
    }

    fn stored(&self) {
        tell(&self.refusals, None);
    }
}

fn rejected(accounts: &Accounts, body: &Quarantined, headers: Headers) -> RejectedWebhook {
    let inbound = Inbound {
        body: body.body.clone(),
        headers,
        received_at: body.received_at,
    };
    RejectedWebhook {
        id: 0,
        inbound,
        reason: REASON.to_owned(),
        // A body that names no account is still Fluent's: its signature proves it.
        account: accounts.claimed_by(&body.body).unwrap_or_default(),
    }
}

/// Counts the body, and has a line for it unless there are many. A spool knows no trace of it.
fn tell(refusals: &RefusalLog, trace: Option<TraceParent>) {
    metrics::QUARANTINE_FULL.add(1, []);
    if refusals.has_room_for_genuine() {
        tracing::error!(
            trace_id = trace.map(|trace| trace.trace_id()),
            "the quarantine is full: a genuine body is held with what was refused, where the oldest goes; `fluent-webhooks quarantine list`"
        );
    }
}
