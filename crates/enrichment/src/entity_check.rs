//! The check whether Fluent knows the entity that an event is about, by the same ref: a tenant of
//! the same environment could sign an event of any content.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch::{BoxError, DispatchError, Event, ExactValue};
use fluent_api::{Accounts, Query};
use serde_json::{Map, Value};

use crate::failure::{ACTION, NotDelivered, client, failed};
use crate::response_cache::ResponseCache;

/// Time for which an entity may still be missing.
const PATIENCE: Duration = Duration::from_mins(2);

/// Queries by type: older entities are looked up by their id, newer ones by their ref.
const QUERIES: [(&str, &str); 9] = [
    (
        "ORDER",
        "query ($id: ID!) { entity: orderById(id: $id) { ref } }",
    ),
    (
        "FULFILMENT",
        "query ($id: ID!) { entity: fulfilmentById(id: $id) { ref } }",
    ),
    (
        "ARTICLE",
        "query ($id: ID!) { entity: articleById(id: $id) { ref } }",
    ),
    (
        "CONSIGNMENT",
        "query ($id: ID!) { entity: consignmentById(id: $id) { ref } }",
    ),
    (
        "WAVE",
        "query ($id: ID!) { entity: waveById(id: $id) { ref } }",
    ),
    (
        "LOCATION",
        "query ($id: ID!) { entity: locationById(id: $id) { ref } }",
    ),
    (
        "RETURN_ORDER",
        "query ($ref: String!, $retailer: ID!) { entity: returnOrder(ref: $ref, retailer: { id: $retailer }) { ref } }",
    ),
    (
        "BILLING_ACCOUNT",
        "query ($ref: String!) { entity: billingAccount(ref: $ref) { ref } }",
    ),
    (
        "INVOICE",
        "query ($ref: String!) { entity: invoice(ref: $ref) { ref } }",
    ),
];

#[derive(Debug)]
pub(crate) struct EntityCheck {
    accounts: Accounts,
    queries: BTreeMap<&'static str, Query>,
    cache: ResponseCache,
}

impl EntityCheck {
    pub(crate) fn new(accounts: &Accounts) -> Result<Self, BoxError> {
        let parsed = QUERIES
            .iter()
            .map(|(kind, text)| Ok((*kind, Query::parse(text)?)));
        let queries = parsed.collect::<Result<_, fluent_api::QueryError>>()?;
        Ok(Self {
            accounts: accounts.clone(),
            queries,
            cache: ResponseCache::new(),
        })
    }

    pub(crate) async fn confirm(
        &self,
        event: &Event,
        waited: Duration,
    ) -> Result<(), DispatchError> {
        let never = |why| DispatchError::permanent(ACTION, why);
        let client = client(&self.accounts, event)?;
        let fields = event.fields();
        let kind = fields.entity_type.as_deref().unwrap_or_default();
        let query = self
            .queries
            .get(kind)
            .ok_or_else(|| never(NotDelivered::NoQuery))?;
        let given = [
            ("id", fields.entity_id.as_deref()),
            ("ref", fields.entity_ref.as_deref()),
            ("retailer", Some(event.retailer())),
        ];
        let mut variables = Map::new();
        for (name, value) in given.into_iter().filter(|(name, _)| query.asks_for(name)) {
            let value = value
                .filter(|value| !value.is_empty())
                .ok_or_else(|| never(NotDelivered::NoEntity))?;
            variables.insert(name.to_owned(), Value::from(value));
        }
        let key = format!(
            "{}/{}/{kind}/{}",
            event.environment(),
            event.account(),
            Value::from(variables.clone())
        );
        let asking = self.cache.get_or_fetch(key, event.received_at(), || {
            client.graphql(query, &variables)
        });
        let found = asking
            .await
            .map_err(|error| failed(&error, waited, PATIENCE))?;
        // An event without a ref could name the id of any entity that exists.
        let said = fields
            .entity_ref
            .as_deref()
            .ok_or_else(|| never(NotDelivered::NoEntity))?;
        let found = found.value();
        let entity = found.get("entity").and_then(|entity| entity.get("ref"));
        match entity.is_some_and(|entity| is_same_ref(event, said, entity)) {
            true => Ok(()),
            false => Err(never(NotDelivered::AnotherRef)),
        }
    }
}

/// Whether the refs are the same. Texts are compared letter by letter: `1.10` and `1.1` may be
/// two orders, and a number in the event counts by its own text. A number in Fluent's answer
/// counts by its value, since nothing says how many zeros it has.
fn is_same_ref(event: &Event, said: &str, found: &ExactValue) -> bool {
    match found {
        ExactValue::Text(text) => match written_ref(event) {
            Some(ExactValue::Number(number)) => number.as_str() == text,
            _ => text == said,
        },
        ExactValue::Number(number) => number.is_same_value(said),
        _ => false,
    }
}

/// Returns the event's ref as its body has it.
fn written_ref(event: &Event) -> Option<ExactValue> {
    ExactValue::parse(event.body())
        .ok()?
        .get("entityRef")
        .cloned()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use event_model::{
        Account, Accounts as Listed, Algorithm, Clock, Evidence, Headers, Inbound, Proof,
        SystemClock, Verified,
    };
    use fluent_api::{Client, Credentials, Limits, MemoryLedger, Options};
    use serde_json::json;
    use settings::EntityCheckSource;
    use simulator::api::{Entity, Fluent, LOGIN, World};

    use super::*;

    fn event(entity: &Entity) -> Event {
        let body = json!({
            "id": "1", "name": "E", "accountId": "ACME", "retailerId": "34",
            "entityType": entity.kind, "entityId": entity.id, "entityRef": entity.reference,
        });
        admitted(body.to_string())
    }

    fn admitted(body: String) -> Event {
        let key: event_model::KeyName = "sydney_sandbox".parse().unwrap();
        let received_at = SystemClock.now();
        let inbound = Inbound {
            body: body.into(),
            headers: Headers::default(),
            received_at,
        };
        let proof = Proof::Signed(Algorithm::Sha512);
        let evidence = Evidence {
            proof,
            key: Arc::new("sydney_sandbox".parse().unwrap()),
            signature: String::new(),
        };
        let accounts = Listed::new([Account {
            name: "ACME".to_owned(),
            key,
            retailers: None,
        }]);
        let admitted = Event::admit(Verified::assert(inbound, evidence), &accounts, None);
        admitted.map_err(|(refusal, _)| refusal).unwrap()
    }

    fn confirmer(fluent: &Fluent) -> EntityCheck {
        let secret = || -> fluent_api::ReadSecret { Arc::new(|| Ok(LOGIN.to_owned())) };
        let client = Client::new(Options {
            base: fluent.url().parse().unwrap(),
            account: "ACME".to_owned(),
            environment: "sandbox".to_owned(),
            credentials: Credentials {
                username: LOGIN.to_owned(),
                password: secret(),
                client_id: LOGIN.to_owned(),
                client_secret: secret(),
            },
            limits: Limits {
                per_second: NonZeroU32::new(1000).unwrap(),
                ..Limits::default()
            },
            ledger: Arc::new(MemoryLedger::new(|| SystemClock.now())),
        });
        EntityCheck::new(&Accounts::default().with("ACME", "sandbox", client.unwrap())).unwrap()
    }

    /// Checks whether an answer with one ref confirms an event with the other.
    #[track_caller]
    fn check_ref(in_event: &str, in_answer: &str, expected: bool) {
        let body = format!(
            r#"{{"id":"1","name":"E","accountId":"ACME","retailerId":"34","entityType":"ORDER","entityRef":{in_event}}}"#
        );
        let event = admitted(body);
        let said = event.fields().entity_ref.clone().unwrap();
        let found = ExactValue::parse(in_answer.as_bytes()).unwrap();
        assert_eq!(
            is_same_ref(&event, &said, &found),
            expected,
            "{in_event} and {in_answer}"
        );
    }

    #[test]
    fn a_ref_is_the_same_by_its_letters_or_as_a_number_by_its_value() {
        check_ref("\"1.10\"", "\"1.10\"", true);
        check_ref("\"1.10\"", "\"1.1\"", false);
        check_ref("1.10", "\"1.10\"", true);
        check_ref("1.10", "\"1.1\"", false);
        check_ref("7", "\"7.0\"", false);
        check_ref("1.10", "1.1", true);
        check_ref("\"0123\"", "123", false);
        check_ref("\"1.10\"", "1.1", true);
        check_ref("1.10", "\"1.2\"", false);
        check_ref("1.10", "true", false);
        check_ref("9405511899560000000001", "9405511899560000000001", true);
        check_ref("9405511899560000000001", "9405511899560000000002", false);
    }

    #[tokio::test]
    async fn every_type_that_fluent_can_be_asked_for_is_confirmed_by_its_own_query() {
        let fluent = Fluent::open(([127, 0, 0, 1], 0).into(), World::new("ACME", 34))
            .await
            .unwrap();
        let world = fluent.world();
        let confirmer = confirmer(&fluent);
        let order = world.place_order();
        let others = [
            "ARTICLE",
            "CONSIGNMENT",
            "WAVE",
            "LOCATION",
            "RETURN_ORDER",
            "BILLING_ACCOUNT",
            "INVOICE",
        ];
        let mut entities = vec![order.entity, order.fulfilments[0].clone()];
        entities.extend(others.map(|kind| world.make(kind, "CREATED")));
        assert_eq!(entities.len(), QUERIES.len());
        assert_eq!(
            QUERIES.map(|(kind, _)| kind),
            EntityCheckSource::ENTITY_TYPES,
            "what `check` takes"
        );
        for entity in entities {
            let confirmed = confirmer.confirm(&event(&entity), Duration::ZERO).await;
            assert!(confirmed.is_ok(), "{}: {confirmed:?}", entity.kind);
            // The entity exists, and the event gives another ref.
            let other = Entity {
                id: "999".to_owned(),
                reference: "X_999".to_owned(),
                ..entity
            };
            let refused = confirmer.confirm(&event(&other), Duration::ZERO).await;
            assert!(refused.is_err(), "{}", other.kind);
        }
        let position = world.make("INVENTORY_POSITION", "ACTIVE");
        let refused = confirmer
            .confirm(&event(&position), Duration::ZERO)
            .await
            .unwrap_err();
        assert!(
            matches!(refused, DispatchError::Permanent { .. }),
            "its catalogue is in no event: {refused:?}"
        );
    }
}
