//! The simulated data: orders with their fulfilments, other entities, and the log.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_graphql::SimpleObject;
use serde_json::{Value, json};

use crate::events::object;

/// All entities and events. Clones share them.
#[derive(Clone, Debug)]
pub struct World(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    account: String,
    retailer: u32,
    next: u64,
    orders: BTreeMap<String, Order>,
    others: BTreeMap<String, Entity>,
    log: Vec<Value>,
    posted: Vec<Value>,
}

/// An entity with an id, a ref and a status.
#[derive(Clone, Debug, SimpleObject)]
pub struct Entity {
    /// Its id.
    pub id: String,
    /// Its ref.
    #[graphql(name = "ref")]
    pub reference: String,
    /// Its kind, such as `FULFILMENT`.
    #[graphql(skip)]
    pub kind: String,
    /// Its type within the kind.
    #[graphql(name = "type")]
    pub subtype: String,
    /// Its status.
    pub status: String,
    /// The time at which it was made.
    pub created_on: String,
    /// The time of its last change.
    pub updated_on: String,
    /// The time of its last change, to compare with.
    #[graphql(skip)]
    pub changed: SystemTime,
}

/// An order.
#[derive(Clone, Debug)]
pub struct Order {
    /// The fields of every entity.
    pub entity: Entity,
    /// The customer's first name.
    pub first_name: String,
    /// The customer's address for mail.
    pub email: String,
    /// The items: ref and quantity.
    pub items: Vec<(String, u32)>,
    /// Its fulfilments.
    pub fulfilments: Vec<Entity>,
    /// Attributes that workflows wrote to it.
    pub attributes: BTreeMap<String, Value>,
}

/// The result of sending a webhook, as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// The webhook was answered.
    Succeeded,
    /// The webhook was not answered, and was given up.
    Failed,
    /// The rule could not load its Setting, logged that, and sent nothing.
    NoSetting,
    /// No rule tried to send a webhook.
    Never,
}

impl Sending {
    fn status(self) -> Option<&'static str> {
        match self {
            Self::Succeeded => Some("SUCCESS"),
            Self::Failed => Some("FAILED"),
            Self::NoSetting | Self::Never => None,
        }
    }
}

const NAMES: [&str; 6] = ["Zoë", "Łukasz", "Ana", "Noor", "Kenji", "Mpho"];

impl World {
    /// An empty world.
    pub fn new(account: &str, retailer: u32) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            account: account.to_owned(),
            retailer,
            next: 1000,
            orders: BTreeMap::new(),
            others: BTreeMap::new(),
            log: Vec::new(),
            posted: Vec::new(),
        })))
    }

    /// The account.
    pub fn account(&self) -> String {
        self.inner().account.clone()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places an order that will be collected at a store.
    pub fn place_order(&self) -> Order {
        let mut inner = self.inner();
        let entity = inner.entity("ORDER", "CC", "BOOKED", "CC");
        let fulfilment = inner.entity("FULFILMENT", "CC_PFS", "ASSIGNED", "FUL");
        let name = NAMES[usize::try_from(inner.next).unwrap_or(0) % NAMES.len()];
        let order = Order {
            email: format!("{}@customers.example", entity.reference.to_lowercase()),
            first_name: name.to_owned(),
            items: vec![("SKU_RED_M".to_owned(), 1), ("SKU_BLUE_L".to_owned(), 2)],
            fulfilments: vec![fulfilment],
            attributes: BTreeMap::new(),
            entity,
        };
        inner.orders.insert(order.entity.id.clone(), order.clone());
        order
    }

    /// Makes an entity of this kind.
    pub fn make(&self, kind: &str, status: &str) -> Entity {
        let mut inner = self.inner();
        let entity = inner.entity(
            kind,
            "DEFAULT",
            status,
            &kind.chars().take(3).collect::<String>(),
        );
        inner.others.insert(entity.id.clone(), entity.clone());
        entity
    }

    /// Sets the status of an order and its fulfilments.
    pub fn advance(&self, order: &str, status: &str) {
        let (now, text) = now();
        if let Some(order) = self.inner().orders.get_mut(order) {
            for entity in std::iter::once(&mut order.entity).chain(&mut order.fulfilments) {
                status.clone_into(&mut entity.status);
                (entity.changed, entity.updated_on) = (now, text.clone());
            }
        }
    }

    /// Logs an event of an order that was sent, and returns the body of its thin webhook.
    pub fn webhook(&self, name: &str, order: &Order) -> Vec<u8> {
        self.webhook_of(name, order, Duration::ZERO, Sending::Succeeded)
    }

    /// Logs a message that a rule writes about an event, at a time `ago` before now.
    pub fn log_custom(&self, event: &str, message: &str, ago: Duration) {
        let mut inner = self.inner();
        let Some(order) = inner.orders.values().next().cloned() else {
            return;
        };
        inner.log_custom(event, message, &written(now().0 - ago), &order.entity);
    }

    /// Logs an event of an order at a time `ago` before now, with the result of sending it, and
    /// returns the body of its thin webhook.
    pub fn webhook_of(
        &self,
        name: &str,
        order: &Order,
        ago: Duration,
        sending: Sending,
    ) -> Vec<u8> {
        let entity = order.entity.clone();
        let mut inner = self.inner();
        let id = inner.id();
        let mut event = inner.record(&id, name, "ORCHESTRATION", "EVENT", &entity);
        let at = written(now().0 - ago);
        event["generatedOn"] = json!(at);
        inner.log.push(event);
        if let Some(status) = sending.status() {
            let sent_id = inner.id();
            let mut sent = inner.record(
                &sent_id,
                "Send Webhook",
                "ORCHESTRATION_AUDIT",
                "ACTION",
                &entity,
            );
            sent["context"]["sourceEvents"] = json!([id]);
            sent["eventStatus"] = json!(status);
            sent["generatedOn"] = json!(at);
            inner.log.push(sent);
        }
        if sending == Sending::NoSetting {
            inner.log_custom(
                &id,
                "SendWebhook: the Setting could not be loaded",
                &at,
                &entity,
            );
        }
        object(&[
            ("id", json!(id)),
            ("name", json!(name)),
            ("accountId", json!(inner.account)),
            ("retailerId", json!(inner.retailer.to_string())),
            ("entityId", json!(entity.id)),
            ("entityRef", json!(entity.reference)),
            ("entityType", json!(entity.kind)),
        ])
    }

    /// Changes a field in the log's record of an event.
    pub fn set_in_log(&self, id: &str, field: &str, value: Value) {
        let mut inner = self.inner();
        if let Some(record) = inner.log.iter_mut().find(|record| record["id"] == id) {
            record[field] = value;
        }
    }

    /// An order by its id, unless it was changed within this time.
    pub fn order(&self, id: &str, unless_within: Duration) -> Option<Order> {
        let order = self.inner().orders.get(id).cloned()?;
        is_visible(&order.entity, unless_within).then_some(order)
    }

    /// A fulfilment by its id, with its order, unless it was changed within this time.
    pub fn fulfilment(&self, id: &str, unless_within: Duration) -> Option<(Order, Entity)> {
        let inner = self.inner();
        let found = inner.orders.values().find_map(|order| {
            let part = order.fulfilments.iter().find(|part| part.id == id)?;
            Some((order.clone(), part.clone()))
        });
        found.filter(|(_, part)| is_visible(part, unless_within))
    }

    /// Another entity of this kind by its id or ref, unless it was changed within this time.
    pub fn other(&self, kind: &str, name: &str, unless_within: Duration) -> Option<Entity> {
        let inner = self.inner();
        let mut all = inner.others.values();
        let is_it = |entity: &&Entity| {
            entity.kind == kind && (entity.id == name || entity.reference == name)
        };
        all.find(is_it)
            .filter(|entity| is_visible(entity, unless_within))
            .cloned()
    }

    /// Accepts a posted event, and writes its attributes to its order.
    pub(crate) fn take(&self, event: Value) -> String {
        let mut inner = self.inner();
        let id = inner.id();
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let by_id = text("entityId");
        let by_ref = text("entityRef");
        let order = inner
            .orders
            .values_mut()
            .find(|order| order.entity.id == by_id || order.entity.reference == by_ref);
        let entity = order.map(|order| {
            let attributes = event["attributes"].as_object().cloned().unwrap_or_default();
            order.attributes.extend(attributes);
            order.entity.clone()
        });
        if let Some(entity) = entity {
            let record = inner.record(&id, &text("name"), "ORCHESTRATION", "EVENT", &entity);
            inner.log.push(record);
        }
        inner.posted.push(event);
        id
    }

    /// Every event that was posted.
    pub fn posted(&self) -> Vec<Value> {
        self.inner().posted.clone()
    }

    /// Calls `look` with the log, which is not copied.
    pub(crate) fn with_log<T>(&self, look: impl FnOnce(&[Value]) -> T) -> T {
        look(&self.inner().log)
    }

    /// The log, oldest first.
    pub fn log(&self) -> Vec<Value> {
        self.inner().log.clone()
    }
}

impl Inner {
    fn id(&mut self) -> String {
        self.next += 1;
        format!(
            "{:08x}-0000-4000-8000-{:012x}",
            fastrand::u32(..),
            self.next
        )
    }

    fn entity(&mut self, kind: &str, subtype: &str, status: &str, prefix: &str) -> Entity {
        self.next += 1;
        let (changed, text) = now();
        Entity {
            id: self.next.to_string(),
            reference: format!("{prefix}_{}", self.next),
            kind: kind.to_owned(),
            subtype: subtype.to_owned(),
            status: status.to_owned(),
            created_on: text.clone(),
            updated_on: text,
            changed,
        }
    }

    fn log_custom(&mut self, event: &str, message: &str, at: &str, entity: &Entity) {
        let id = self.id();
        let mut record = self.record(&id, "Custom", "ORCHESTRATION_AUDIT", "CUSTOM", entity);
        record["context"]["sourceEvents"] = json!([event]);
        record["attributes"] = json!([{ "name": "message", "type": "STRING", "value": message }]);
        record["generatedOn"] = json!(at);
        self.log.push(record);
    }

    fn record(&self, id: &str, name: &str, kind: &str, category: &str, entity: &Entity) -> Value {
        json!({
            "id": id, "name": name, "type": kind, "accountId": self.account,
            "retailerId": self.retailer.to_string(), "category": category,
            "context": {
                "sourceEvents": [], "entityType": entity.kind, "entityId": entity.id,
                "entityRef": entity.reference, "rootEntityType": entity.kind, "rootEntityId": entity.id,
                "rootEntityRef": entity.reference,
            },
            "eventStatus": "SUCCESS", "attributes": [], "source": null, "generatedBy": "simulator",
            "generatedOn": now().1,
        })
    }
}

fn is_visible(entity: &Entity, unless_within: Duration) -> bool {
    entity.changed.elapsed().unwrap_or_default() >= unless_within
}

/// The present time, also in Fluent's format.
#[expect(
    clippy::disallowed_methods,
    reason = "a Fluent of our own has a clock of its own"
)]
fn now() -> (SystemTime, String) {
    let now = SystemTime::now();
    (now, written(now))
}

/// A time in Fluent's format.
fn written(at: SystemTime) -> String {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let at = jiff::Timestamp::UNIX_EPOCH + since;
    at.strftime("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string()
}
