//! Whether Fluent knows the entity that an event is about, by the same ref: a tenant of
//! the same environment could sign an event of any content.

use std::collections::BTreeMap;
use std::time::Duration;

use dispatch::{BoxError, DispatchError, Event, ExactValue};
use fluent_api::{Accounts, Query};
use serde_json::{Map, Value};

use crate::burst::Burst;
use crate::failure::{ACTION, NotDelivered, client, failed};

/// How long an entity may not be there yet.
const PATIENCE: Duration = Duration::from_mins(2);

/// Older entities are asked for by their id, newer ones by their ref.
const QUERIES: [(&str, &str); 9] = [
    ("ORDER", "query ($id: ID!) { entity: orderById(id: $id) { ref } }"),
    ("FULFILMENT", "query ($id: ID!) { entity: fulfilmentById(id: $id) { ref } }"),
    ("ARTICLE", "query ($id: ID!) { entity: articleById(id: $id) { ref } }"),
    ("CONSIGNMENT", "query ($id: ID!) { entity: consignmentById(id: $id) { ref } }"),
    ("WAVE", "query ($id: ID!) { entity: waveById(id: $id) { ref } }"),
    ("LOCATION", "query ($id: ID!) { entity: locationById(id: $id) { ref } }"),
    (
        "RETURN_ORDER",
        "query ($ref: String!, $retailer: ID!) { entity: returnOrder(ref: $ref, retailer: { id: $retailer }) { ref } }",
    ),
    ("BILLING_ACCOUNT", "query ($ref: String!) { entity: billingAccount(ref: $ref) { ref } }"),
    ("INVOICE", "query ($ref: String!) { entity: invoice(ref: $ref) { ref } }"),
];

#[derive(Debug)]
pub(crate) struct Confirmer {
    accounts: Accounts,
    queries: BTreeMap<&'static str, Query>,
    burst: Burst,
}

impl Confirmer {
    pub(crate) fn new(accounts: &Accounts) -> Result<Self, BoxError> {
        let parsed = QUERIES.iter().map(|(kind, text)| Ok((*kind, Query::parse(text)?)));
        let queries = parsed.collect::<Result<_, fluent_api::QueryError>>()?;
        Ok(Self { accounts: accounts.clone(), queries, burst: Burst::new() })
    }

    pub(crate) async fn confirm(&self, event: &Event, waited: Duration) -> Result<(), DispatchError> {
        let never = |why| DispatchError::permanent(ACTION, why);
        let (client, fields) = (client(&self.accounts, event)?, event.fields());
        let kind = fields.entity_type.as_deref().unwrap_or_default();
        let query = self.queries.get(kind).ok_or_else(|| never(NotDelivered::NoQuery))?;
        let given = [
            ("id", fields.entity_id.as_deref()),
            ("ref", fields.entity_ref.as_deref()),
            ("retailer", Some(event.retailer())),
        ];
        let mut variables = Map::new();
        for (name, value) in given.into_iter().filter(|(name, _)| query.asks_for(name)) {
            let value =
                value.filter(|value| !value.is_empty()).ok_or_else(|| never(NotDelivered::NoEntity))?;
            variables.insert(name.to_owned(), Value::from(value));
        }
        let key =
            format!("{}/{}/{kind}/{}", event.environment(), event.account(), Value::from(variables.clone()));
        let asking = self.burst.share(key, event.received_at(), || client.graphql(query, &variables));
        let found = asking.await.map_err(|error| failed(&error, waited, PATIENCE))?;
        // Without a ref anybody could name an entity that exists.
        let said = fields.entity_ref.as_deref().ok_or_else(|| never(NotDelivered::NoEntity))?;
        let found = found.value();
        let entity = found.get("entity").and_then(|entity| entity.get("ref"));
        match entity.and_then(ExactValue::as_text) == Some(said) {
            true => Ok(()),
            false => Err(never(NotDelivered::AnotherRef)),
        }
    }
}
