//! What a job is asked to do, as the contract says it.

use proto::v1;
use proto::v1::job_spec::Act;
use serde_json::{Value, json};
use tonic::Status;

use crate::{Operator, letters, service};

/// The filter of a job about dead letters.
fn filter(act: &Act) -> Option<v1::DeadLetterFilter> {
    match act {
        Act::Redrive(job) => Some(job.filter.clone().unwrap_or_default()),
        Act::Discard(job) => Some(job.filter.clone().unwrap_or_default()),
        _ => None,
    }
}

impl Operator {
    /// Refuses names that nobody knows.
    pub(super) async fn ensure_names(&self, spec: &v1::JobSpec) -> Result<(), Status> {
        let Some(act) = &spec.act else {
            return Ok(());
        };
        if let Some(filter) = filter(act) {
            self.ensure_route(&filter.route).await?;
            self.ensure_account(&filter.account).await?;
        }
        match act {
            Act::Redrive(job) => self.ensure_route(&job.to).await,
            Act::Replay(job) => {
                self.ensure_route(&job.route).await?;
                self.ensure_account(&job.account).await
            }
            Act::AdmitRefused(job) => self.ensure_account(&job.account).await,
            Act::Discard(_) | Act::RecheckQuarantined(_) => Ok(()),
        }
    }
}

/// A spec as the audit log has it.
pub(super) fn audited(spec: &v1::JobSpec) -> Value {
    let time = |at: &Option<proto::Timestamp>| at.as_ref().and_then(grpc::timestamp_of);
    let Some(act) = &spec.act else {
        return Value::Null;
    };
    let selection = filter(act)
        .and_then(|filter| letters::query(filter).ok())
        .map(|query| service::filtered(&query));
    match act {
        Act::Redrive(job) => json!({ "act": "redrive", "selection": selection, "to": job.to }),
        Act::Discard(_) => json!({ "act": "discard", "selection": selection }),
        Act::Replay(job) => json!({
            "act": "replay",
            "route": job.route,
            "from": time(&job.from),
            "until": time(&job.until),
            "event": job.event,
            "account": job.account,
            "ref": job.reference,
            "again": job.again,
        }),
        Act::RecheckQuarantined(job) => json!({
            "act": "recheck-quarantined",
            "since": time(&job.since),
            "until": time(&job.until),
        }),
        Act::AdmitRefused(job) => json!({
            "act": "admit-refused",
            "account": job.account,
            "reason": job.reason,
            "since": time(&job.since),
            "until": time(&job.until),
        }),
    }
}
