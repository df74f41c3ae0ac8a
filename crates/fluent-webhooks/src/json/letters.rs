//! Dead letters, quarantined webhooks and refused ones.

use proto::v1;
use schemars::JsonSchema;
use serde::Serialize;

use super::{UtcTime, text};

/// A delivery that no further attempt can help, or an event that no route matched.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeadLetter {
    /// Its number, for `show`, `redrive` and `discard`.
    id: u64,
    /// The route on which it died; `unrouted` for what no route matched.
    route: String,
    /// `permanent`, `exhausted`, `crash`, `undecided` or `unrouted`.
    reason: String,
    /// The last failure in words.
    detail: Option<String>,
    /// How many attempts there were.
    attempts: u32,
    /// The number of the redrive or replay that it came from, 0 for none.
    redrive: u32,
    created_at: Option<UtcTime>,
    /// The event's id: 64 hexadecimal digits.
    event_id: String,
    /// The event's name.
    event: String,
    /// Fluent's accountId.
    account: Option<String>,
    /// `<entityType>/<entityRef>`.
    entity: Option<String>,
    /// `/fluent/<environment>/<account>/<retailer>`.
    source: String,
    received_at: Option<UtcTime>,
    trace_id: Option<String>,
    /// The event's body, for `show --body`.
    body: Option<String>,
}

impl DeadLetter {
    /// The letter, with its body if that was asked for.
    pub(crate) fn new(letter: &v1::DeadLetter, has_body: bool) -> Self {
        let event = letter.event.clone().unwrap_or_default();
        let source = format!(
            "/fluent/{}/{}/{}",
            event.environment, event.account, event.retailer
        );
        Self {
            id: letter.id,
            route: letter.route.clone(),
            reason: letter.reason.clone(),
            detail: text(&letter.detail),
            attempts: letter.attempts,
            redrive: letter.redrive,
            created_at: UtcTime::of(letter.created_at.as_ref()),
            event_id: event.id.clone(),
            event: event.name.clone(),
            account: text(&event.account),
            entity: crate::commands::letters::entity(&event),
            source,
            received_at: UtcTime::of(event.received_at.as_ref()),
            trace_id: text(&letter.trace_id),
            body: has_body.then(|| String::from_utf8_lossy(&event.body).into_owned()),
        }
    }
}

/// A genuine webhook that is not an event.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QuarantinedWebhook {
    /// Its number, for `show`, `redrive` and `discard`.
    id: u64,
    /// Why it is not an event.
    reason: String,
    /// The key that signed it.
    key: String,
    /// `sha512` or `md5`.
    algorithm: String,
    /// Length of its body.
    bytes: u64,
    received_at: Option<UtcTime>,
    /// Its body, for `show --body`.
    body: Option<String>,
}

impl QuarantinedWebhook {
    /// The webhook, with its body if that was asked for.
    pub(crate) fn new(webhook: &v1::QuarantinedWebhook, has_body: bool) -> Self {
        Self {
            id: webhook.id,
            reason: webhook.reason.clone(),
            key: webhook.key.clone(),
            algorithm: webhook.algorithm.clone(),
            bytes: webhook.bytes,
            received_at: UtcTime::of(webhook.received_at.as_ref()),
            body: has_body.then(|| String::from_utf8_lossy(&webhook.body).into_owned()),
        }
    }
}

/// A webhook that was refused, and is held for a person.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RejectedWebhook {
    /// Its number, for `explain`.
    id: u64,
    /// Such as `no-key-matches` or `wrong-key`.
    reason: String,
    /// The account that its body names; anybody can write that.
    account: String,
    /// Length of its body.
    bytes: u64,
    received_at: Option<UtcTime>,
}

impl From<&v1::RefusedWebhook> for RejectedWebhook {
    fn from(webhook: &v1::RefusedWebhook) -> Self {
        Self {
            id: webhook.id,
            reason: webhook.reason.clone(),
            account: webhook.account.clone(),
            bytes: webhook.bytes,
            received_at: UtcTime::of(webhook.received_at.as_ref()),
        }
    }
}

/// What is wrong with a refused webhook.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExplainedWebhook {
    webhook: RejectedWebhook,
    /// Whether it would be admitted now.
    admissible: bool,
    /// What is wrong with it, and what that usually comes from.
    explanation: String,
}

impl From<&v1::ExplainRefusedResponse> for ExplainedWebhook {
    fn from(answer: &v1::ExplainRefusedResponse) -> Self {
        let webhook = answer.webhook.clone().unwrap_or_default();
        Self {
            webhook: RejectedWebhook::from(&webhook),
            admissible: answer.admissible,
            explanation: answer.explanation.clone(),
        }
    }
}
