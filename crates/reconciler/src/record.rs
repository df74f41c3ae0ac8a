//! An event out of a record of Fluent's log.

use std::sync::Arc;

use event_model::{
    Account, Accounts, Environment, Event, Evidence, Headers, Inbound, Proof, Refusal, Timestamp,
    TraceParent, Verified,
};
use fluent_api::EventRecord;
use serde::Serialize;
use serde_json::Value;

/// What a webhook would say, as far as the log knows. The order and the form are fixed:
/// the same record gives the same bytes, and so the same id.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'r> {
    id: &'r str,
    name: &'r str,
    account_id: &'r str,
    retailer_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_ref: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_type: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<&'r Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_entity_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_entity_type: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_entity_ref: Option<&'r str>,
}

/// Why a record can't become an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the record is of another account than was asked")]
    AnotherAccount,
}

/// The account that was asked, and who may send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) account: &'a str,
    pub(crate) environment: Environment,
    pub(crate) allowed: &'a Accounts,
}

/// The event that a record is of. It passes the same door as a webhook.
pub(crate) fn event(
    record: &EventRecord,
    asked: Asked<'_>,
    now: Timestamp,
    trace: Option<TraceParent>,
) -> Result<Event, Unfit> {
    if record.account_id != asked.account {
        return Err(Unfit::AnotherAccount);
    }
    let is_asked = |account: &&Account| account.key.environment() == asked.environment;
    let account = asked.allowed.named(asked.account).iter().find(is_asked).ok_or(Refusal::UnknownAccount)?;
    let inbound = Inbound { body: body(record).into(), headers: Headers::default(), received_at: now };
    let key = Arc::new(account.key.clone());
    let evidence = Evidence { proof: Proof::Api, key, signature: String::new() };
    // The account's own API told it, over TLS and to its own login.
    let verified = Verified::assert(inbound, evidence);
    Event::admit(verified, asked.allowed, trace).map_err(|(refusal, _)| refusal.into())
}

fn body(record: &EventRecord) -> Vec<u8> {
    let context = &record.context;
    let is_something =
        |value: &&Value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
    let body = Body {
        id: &record.id,
        name: &record.name,
        account_id: &record.account_id,
        retailer_id: record.retailer_id.as_ref().and_then(text),
        entity_id: context.entity_id.as_ref().and_then(text),
        entity_ref: context.entity_ref.as_deref(),
        entity_type: context.entity_type.as_deref(),
        attributes: record.attributes.as_ref().filter(is_something),
        root_entity_id: context.root_entity_id.as_ref().and_then(text),
        root_entity_type: context.root_entity_type.as_deref(),
        root_entity_ref: context.root_entity_ref.as_deref(),
    };
    // Texts, and JSON that was read, always have a form in JSON.
    serde_json::to_vec(&body).unwrap_or_default()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use event_model::Origin;
    use serde_json::json;

    use super::*;

    fn record(account: &str, retailer: &Value) -> EventRecord {
        let record = json!({
            "id": "e-1", "name": "OrderStatusChange", "type": "ORCHESTRATION", "accountId": account,
            "retailerId": retailer, "category": "EVENT", "eventStatus": "PENDING", "attributes": [],
            "context": { "entityType": "ORDER", "entityId": 17, "entityRef": "HD_1", "rootEntityType": "ORDER" },
            "generatedOn": "2026-11-25T08:00:00.123+0000",
        });
        serde_json::from_value(record).unwrap()
    }

    fn made(record: &EventRecord) -> Result<Event, Unfit> {
        let account = |key: &str| Account {
            name: "ACME".to_owned(),
            key: key.parse().unwrap(),
            retailers: Some(vec!["34".to_owned()]),
        };
        let allowed = Accounts::new([account("sydney_production"), account("sydney_sandbox")]);
        let asked = Asked { account: "ACME", environment: Environment::Sandbox, allowed: &allowed };
        event(record, asked, Timestamp::UNIX_EPOCH, None)
    }

    #[test]
    fn a_record_becomes_the_event_that_never_came() {
        let event = made(&record("ACME", &json!(34))).unwrap();
        assert_eq!((event.origin(), event.environment()), (Origin::Reconciled, Environment::Sandbox));
        let expected = r#"{"id":"e-1","name":"OrderStatusChange","accountId":"ACME","retailerId":"34","entityId":"17","entityRef":"HD_1","entityType":"ORDER","rootEntityType":"ORDER"}"#;
        assert_eq!(event.body(), expected);
    }

    #[test]
    fn what_changes_in_the_log_does_not_change_the_event() {
        let mut later = record("ACME", &json!("34"));
        later.event_status = Some("SUCCESS".to_owned());
        assert_eq!(made(&later).unwrap().id(), made(&record("ACME", &json!(34))).unwrap().id());
    }

    #[test]
    fn the_door_is_the_same_as_for_webhooks() {
        let refused = |account: &str, retailer: &Value| made(&record(account, retailer)).map(drop);
        assert_eq!(refused("OTHER", &json!(34)), Err(Unfit::AnotherAccount));
        assert_eq!(refused("ACME", &json!(99)), Err(Refusal::UnknownRetailer.into()));
        let missing = event_model::Malformed::Missing("retailerId");
        assert_eq!(refused("ACME", &Value::Null), Err(Refusal::Malformed(missing).into()));
    }
}
