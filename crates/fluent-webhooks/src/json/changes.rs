//! What commands changed, and the audit log.

use proto::v1;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::{UtcTime, text};

/// The result of a command that changes things.
#[derive(Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BulkResult {
    /// What was done, such as `redriven`, `removed` or `forgotten`. `matched` and `verified` mean
    /// that it was only counted.
    action: String,
    /// To how many it was done.
    succeeded: u64,
    /// For how many it failed: each stays as it was.
    failed: u64,
    /// How many were left out, since there was nothing to do.
    skipped: u64,
    /// How many were left out, since it is no longer known what became of them.
    unknown: u64,
    /// Why the first that failed did.
    first_error: Option<String>,
}

impl BulkResult {
    /// The result of a bulk call.
    pub(crate) fn new(action: &str, counts: &v1::BulkProgress) -> Self {
        Self {
            action: action.to_owned(),
            succeeded: counts.succeeded,
            failed: counts.failed,
            skipped: counts.skipped,
            unknown: counts.unknown,
            first_error: text(&counts.first_error),
        }
    }
}

/// The result of `routes resume`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Resumed {
    pub(crate) route: String,
    pub(crate) was_paused: bool,
    /// In how many processes its breaker was open; its destination is asked at once.
    pub(crate) breakers_closed: u32,
}

/// The result of `deliveries retry`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Retried {
    pub(crate) event_id: String,
    /// The routes on which it is due now.
    pub(crate) routes: Vec<String>,
}

/// One thing that was changed.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditEntry {
    occurred_at: Option<UtcTime>,
    /// The token's or certificate's name; `<user>@<host>` where a command worked on the queue
    /// itself.
    actor: String,
    /// The method, such as `RedriveDeadLetters`.
    action: String,
    /// What was asked for.
    request: Value,
    /// How many were changed.
    affected: u64,
    failed: u64,
    /// The numbers of those that were changed, in ranges, as `1-3, 7`.
    affected_ids: Option<String>,
    /// The numbers of those that failed, or are not there.
    failed_ids: Option<String>,
    /// `begun`, `done`, or why it ended.
    outcome: String,
}

impl From<&v1::AuditEntry> for AuditEntry {
    fn from(entry: &v1::AuditEntry) -> Self {
        Self {
            occurred_at: UtcTime::of(entry.occurred_at.as_ref()),
            actor: entry.actor.clone(),
            action: entry.action.clone(),
            request: serde_json::from_str(&entry.request).unwrap_or_default(),
            affected: entry.affected,
            failed: entry.failed,
            affected_ids: text(&entry.affected_ids),
            failed_ids: text(&entry.failed_ids),
            outcome: entry.outcome.clone(),
        }
    }
}
