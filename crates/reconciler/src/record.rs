//! The event of a record in Fluent's log.

use std::sync::Arc;

use event_model::{
    Account, Accounts, AdmissionError, Environment, Event, Evidence, FluentKey, Headers, Inbound,
    KeyId, Proof, Timestamp, TraceParent, Verified, id_text,
};
use fluent_api::EventRecord;
use serde::Serialize;
use serde_json::value::RawValue;
use settings::SealingKey;

use crate::one_form::one_form;

/// Statuses of an event in Fluent's log.
const PENDING: &str = "PENDING";
const SCHEDULED: &str = "SCHEDULED";
const NO_MATCH: &str = "NO_MATCH";
const FAILED: &str = "FAILED";

/// Body of the webhook, as far as the log has it. Order and form are fixed: the same record gives
/// the same bytes, and so the same id.
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
    attributes: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_entity_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_entity_type: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_entity_ref: Option<&'r str>,
}

/// Reason for which a record can't become an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error(transparent)]
    Refused(#[from] AdmissionError),
    #[error("the record is of another account than was asked")]
    AnotherAccount,
}

/// The account that is compared, and the accounts that may send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccountContext<'a> {
    account: &'a Account,
    allowed: &'a Accounts,
    seal: Option<&'a SealingKey>,
}

impl<'a> AccountContext<'a> {
    /// Returns `None` if the account may not send.
    pub(crate) fn new(
        name: &str,
        environment: Environment,
        allowed: &'a Accounts,
        seal: Option<&'a SealingKey>,
    ) -> Option<Self> {
        let account = allowed
            .named(name)
            .iter()
            .find(|account| account.key.environment() == environment)?;
        Some(Self {
            account,
            allowed,
            seal,
        })
    }

    /// Returns the key by which Fluent knows the record's event.
    pub(crate) fn key(&self, record: &EventRecord) -> FluentKey {
        FluentKey::of(
            self.account.key.environment(),
            &self.account.name,
            &record.id,
            &record.name,
        )
    }

    /// Whether a webhook of it should have been received, as far as that can be told: not for a
    /// retailer that is not listed, nor if no workflow ran for it, or has yet to.
    pub(crate) fn should_have_come(&self, record: &EventRecord) -> bool {
        let retailer = record.retailer_id.as_deref().and_then(id_text);
        let serves =
            |retailers: &Vec<String>| retailer.is_none_or(|retailer| retailers.contains(&retailer));
        let has_run = !matches!(record.event_status.as_deref(), Some(SCHEDULED | NO_MATCH));
        has_run && self.account.retailers.as_ref().is_none_or(serves)
    }

    /// Makes the event of a record, by the same admission as a webhook.
    pub(crate) fn event(
        &self,
        record: &EventRecord,
        now: Timestamp,
        trace: Option<TraceParent>,
    ) -> Result<Event, RecordError> {
        if record.account_id != self.account.name {
            return Err(RecordError::AnotherAccount);
        }
        let inbound = Inbound {
            body: body(record).into(),
            headers: Headers::default(),
            received_at: now,
        };
        let key = self.account.key.clone();
        let evidence = match self.seal {
            Some(seal) => seal.evidence(key, &inbound.body),
            None => {
                let key = Arc::new(KeyId::any_named(key));
                Evidence {
                    proof: Proof::Api,
                    key,
                    signature: String::new(),
                }
            }
        };
        // It comes from the account's own API, over TLS and by its own login.
        let verified = Verified::assert(inbound, evidence);
        Event::admit(verified, self.allowed, trace).map_err(|(refusal, _)| refusal.into())
    }
}

/// Whether Fluent still works on it.
pub(crate) fn is_pending(record: &EventRecord) -> bool {
    record.event_status.as_deref() == Some(PENDING)
}

/// Whether its workflow ended in an error.
pub(crate) fn has_failed(record: &EventRecord) -> bool {
    record.event_status.as_deref() == Some(FAILED)
}

fn body(record: &EventRecord) -> Vec<u8> {
    let context = &record.context;
    let body = Body {
        id: &record.id,
        name: &record.name,
        account_id: &record.account_id,
        retailer_id: record.retailer_id.as_deref().and_then(id_text),
        entity_id: context.entity_id.as_deref().and_then(id_text),
        entity_ref: context.entity_ref.as_deref(),
        entity_type: context.entity_type.as_deref(),
        attributes: (record.attributes.as_deref().map(one_form)).filter(|all| all.get() != "[]"),
        root_entity_id: context.root_entity_id.as_deref().and_then(id_text),
        root_entity_type: context.root_entity_type.as_deref(),
        root_entity_ref: context.root_entity_ref.as_deref(),
    };
    // Texts, and JSON that was parsed, can always be written as JSON.
    serde_json::to_vec(&body).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use event_model::Origin;
    use serde_json::{Value, json};

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

    fn made(record: &EventRecord) -> Result<Event, RecordError> {
        let account = |key: &str| Account {
            name: "ACME".to_owned(),
            key: key.parse().unwrap(),
            retailers: Some(vec!["34".to_owned()]),
        };
        let allowed = Accounts::new([account("sydney_production"), account("sydney_sandbox")]);
        let asked = AccountContext::new("ACME", Environment::Sandbox, &allowed, None).unwrap();
        asked.event(record, Timestamp::UNIX_EPOCH, None)
    }

    #[test]
    fn a_record_becomes_the_event_that_never_came() {
        let event = made(&record("ACME", &json!(34))).unwrap();
        assert_eq!(
            (event.origin(), event.environment()),
            (Origin::Reconciled, Environment::Sandbox)
        );
        let expected = r#"{"id":"e-1","name":"OrderStatusChange","accountId":"ACME","retailerId":"34","entityId":"17","entityRef":"HD_1","entityType":"ORDER","rootEntityType":"ORDER"}"#;
        assert_eq!(event.body(), expected);
    }

    #[test]
    fn numbers_are_told_as_the_log_has_them() {
        let exact = r#"[{"name":"n","type":"FLOAT","value":[1.10,1e3,-0.0,1e999,9405511899560000000001,{"a":0.30,"z":1}]}]"#;
        let mut record = record("ACME", &json!(34));
        let spaced = exact.replace(r#""a":0.30,"z":1"#, r#" "z": 1, "a": 0.30 "#);
        record.attributes = Some(RawValue::from_string(spaced).unwrap());
        record.context.entity_id =
            Some(RawValue::from_string("9405511899560000000001".to_owned()).unwrap());
        let body = String::from_utf8(made(&record).unwrap().body().to_vec()).unwrap();
        assert!(
            body.contains(&format!(r#""attributes":{exact},"#)),
            "{body}"
        );
        assert!(
            body.contains(r#""entityId":"9405511899560000000001","#),
            "{body}"
        );
    }

    #[test]
    fn what_changes_in_the_log_does_not_change_the_event() {
        let mut later = record("ACME", &json!("34"));
        later.event_status = Some("SUCCESS".to_owned());
        assert_eq!(
            made(&later).unwrap().id(),
            made(&record("ACME", &json!(34))).unwrap().id()
        );
    }

    #[test]
    fn the_door_is_the_same_as_for_webhooks() {
        let refused = |account: &str, retailer: &Value| made(&record(account, retailer)).map(drop);
        assert_eq!(
            refused("OTHER", &json!(34)),
            Err(RecordError::AnotherAccount)
        );
        assert_eq!(
            refused("ACME", &json!(99)),
            Err(AdmissionError::UnknownRetailer.into())
        );
        let missing = event_model::Malformed::Missing("retailerId");
        assert_eq!(
            refused("ACME", &Value::Null),
            Err(AdmissionError::Malformed(missing).into())
        );
    }

    #[test]
    fn not_everything_that_is_logged_should_have_come() {
        let account = |retailers: Option<&[&str]>| Account {
            name: "ACME".to_owned(),
            key: "sydney_sandbox".parse().unwrap(),
            retailers: retailers.map(|all| all.iter().map(|one| (*one).to_owned()).collect()),
        };
        let should = |retailers: Option<&[&str]>, retailer: &Value, status: &str| {
            let allowed = Accounts::new([account(retailers)]);
            let asked = AccountContext::new("ACME", Environment::Sandbox, &allowed, None).unwrap();
            let record = EventRecord {
                event_status: Some(status.to_owned()),
                ..record("ACME", retailer)
            };
            asked.should_have_come(&record)
        };
        assert!(
            should(None, &json!(7), "SUCCESS") && should(Some(&["34"]), &json!(34), "COMPLETE")
        );
        assert!(
            !should(Some(&["34"]), &json!(7), "SUCCESS"),
            "of a retailer that is not served"
        );
        assert!(!should(None, &json!(34), "SCHEDULED") && !should(None, &json!(34), "NO_MATCH"));
        assert!(should(None, &json!(34), "FAILED") && should(None, &json!(34), "PENDING"));
    }
}
