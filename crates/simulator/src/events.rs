//! The events that Fluent sends: orders, fulfilments, consignments, inventory,
//! returns, in the key order of real bodies, minified.

use serde_json::{Value, json};

/// The body of one webhook, with the facts that tests need.
#[derive(Clone, Debug)]
pub struct Event {
    /// The event's name, by which it is routed.
    pub name: String,
    /// The entity it is about.
    pub entity_ref: String,
    /// The minified body.
    pub body: Vec<u8>,
}

/// The amount of data in a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Everything, with attributes as an object.
    Full,
    /// Everything, with attributes as a list of name, type and value.
    List,
    /// Ids and refs only, as Fluent recommends.
    Thin,
}

/// Writes events of one account, each different from all before it.
#[derive(Clone, Debug)]
pub struct Events {
    account: String,
    retailer: u32,
    random: fastrand::Rng,
    number: u64,
}

struct Kind {
    name: &'static str,
    entity: &'static str,
    subtype: &'static str,
    prefix: &'static str,
    statuses: &'static [&'static str],
}

const KINDS: [Kind; 12] = [
    Kind {
        name: "OrderStatusChange",
        entity: "ORDER",
        subtype: "HD",
        prefix: "HD",
        statuses: &["BOOKED", "PICK_PACK", "SHIPPED", "COMPLETE"],
    },
    Kind {
        name: "OrderReadyForPickup",
        entity: "ORDER",
        subtype: "CC",
        prefix: "CC",
        statuses: &["AWAITING_COLLECTION"],
    },
    Kind {
        name: "FulfilmentStatusChange",
        entity: "FULFILMENT",
        subtype: "HD_PFS",
        prefix: "FUL",
        statuses: &["ASSIGNED", "FULFILLED", "REJECTED"],
    },
    Kind {
        name: "order_webhook_status",
        entity: "ORDER",
        subtype: "MULTI",
        prefix: "MU",
        statuses: &["BOOKED", "CANCELLED"],
    },
    Kind {
        name: "fc.connect.order.webhook.status-update",
        entity: "ORDER",
        subtype: "HD",
        prefix: "HD",
        statuses: &["SHIPPED"],
    },
    Kind {
        name: "InventoryChanged",
        entity: "INVENTORY_POSITION",
        subtype: "DEFAULT",
        prefix: "IP",
        statuses: &["ACTIVE"],
    },
    Kind {
        name: "OrderBooked",
        entity: "ORDER",
        subtype: "HD",
        prefix: "HD",
        statuses: &["BOOKED"],
    },
    Kind {
        name: "FulfilmentRequested",
        entity: "FULFILMENT",
        subtype: "HD_PFDC",
        prefix: "FUL",
        statuses: &["AWAITING_WAVE"],
    },
    Kind {
        name: "ConsignmentCreated",
        entity: "CONSIGNMENT",
        subtype: "DEFAULT",
        prefix: "CON",
        statuses: &["CREATED"],
    },
    Kind {
        name: "ConsignmentBooked",
        entity: "CONSIGNMENT",
        subtype: "DEFAULT",
        prefix: "CON",
        statuses: &["BOOKED"],
    },
    Kind {
        name: "ManifestClosed",
        entity: "WAVE",
        subtype: "DEFAULT",
        prefix: "MAN",
        statuses: &["CLOSED"],
    },
    Kind {
        name: "ReturnOrderCreated",
        entity: "RETURN_ORDER",
        subtype: "DEFAULT",
        prefix: "RO",
        statuses: &["CREATED"],
    },
];

fn kind_of(name: &str) -> &'static Kind {
    let known = KINDS.iter().find(|kind| kind.name == name);
    known.unwrap_or(&KINDS[0])
}

impl Events {
    /// Starts a series of events for this account and retailer. The same seed gives the same
    /// series.
    pub fn new(account: impl Into<String>, retailer: u32, seed: u64) -> Self {
        Self {
            account: account.into(),
            retailer,
            random: fastrand::Rng::with_seed(seed),
            number: 0,
        }
    }

    /// The next event, with any name and shape.
    pub fn any(&mut self) -> Event {
        let name = self.any_name();
        let shape = [Shape::Full, Shape::List, Shape::Thin][self.random.usize(..3)];
        self.of(name, shape)
    }

    /// Any of the names that there are examples for.
    pub fn any_name(&mut self) -> &'static str {
        KINDS[self.random.usize(..KINDS.len())].name
    }

    /// The next event with this name. A name that Fluent has no example for is given an order.
    pub fn of(&mut self, name: &str, shape: Shape) -> Event {
        self.number += 1;
        let kind = kind_of(name);
        let reference = format!(
            "{}_{:04}_{}",
            kind.prefix,
            self.random.u32(..10_000),
            self.number
        );
        self.about(name, kind, reference, shape)
    }

    /// The next event with this name and `entityRef`.
    pub fn of_entity(&mut self, name: &str, reference: &str, shape: Shape) -> Event {
        self.number += 1;
        self.about(name, kind_of(name), reference.to_owned(), shape)
    }

    fn about(&mut self, name: &str, kind: &Kind, reference: String, shape: Shape) -> Event {
        let body = match shape {
            Shape::Thin => self.thin(name, kind, &reference),
            Shape::Full | Shape::List => self.full(name, kind, &reference, shape),
        };
        Event {
            name: name.to_owned(),
            entity_ref: reference,
            body,
        }
    }

    fn thin(&mut self, name: &str, kind: &Kind, reference: &str) -> Vec<u8> {
        object(&[
            ("id", json!(self.uuid())),
            ("name", json!(name)),
            ("accountId", json!(self.account)),
            ("retailerId", json!(self.retailer.to_string())),
            (
                "entityId",
                json!(self.random.u32(1000..9_999_999).to_string()),
            ),
            ("entityRef", json!(reference)),
            ("entityType", json!(kind.entity)),
        ])
    }

    fn full(&mut self, name: &str, kind: &Kind, reference: &str, shape: Shape) -> Vec<u8> {
        let entity_id = self.random.u32(1000..9_999_999).to_string();
        let status = kind.statuses[self.random.usize(..kind.statuses.len())];
        let root = if kind.entity == "FULFILMENT" {
            format!("HD_{reference}")
        } else {
            reference.to_owned()
        };
        let root_type = if kind.entity == "FULFILMENT" {
            "ORDER"
        } else {
            kind.entity
        };
        object(&[
            ("id", json!(self.uuid())),
            ("name", json!(name)),
            ("accountId", json!(self.account)),
            ("retailerId", json!(self.retailer.to_string())),
            ("entityId", json!(entity_id)),
            ("entityRef", json!(reference)),
            ("entityType", json!(kind.entity)),
            ("entitySubtype", json!(kind.subtype)),
            ("entityStatus", json!(status)),
            ("type", json!("NORMAL")),
            ("attributes", self.attributes(shape)),
            (
                "meta",
                json!({"mode": "SYNC", "simulation": false, "models": []}),
            ),
            ("trailLogs", json!([])),
            ("errorLogs", json!([])),
            ("rootEntityId", json!(entity_id)),
            ("rootEntityType", json!(root_type)),
            ("rootEntityRef", json!(root)),
        ])
    }

    fn attributes(&mut self, shape: Shape) -> Value {
        let tracking = format!("TRK{:09}", self.random.u32(..1_000_000_000));
        let values = [
            ("store", "Sydney CBD".to_owned()),
            ("ShippingPartner", "Star Track".to_owned()),
            (
                "TrackingURL",
                format!("https://track.example.com/{tracking}?lang=en&x=1"),
            ),
            ("TrackingNumber", tracking),
            ("customerName", "Zoë Łukasiewicz 😀".to_owned()),
        ];
        match shape {
            Shape::List => values
                .iter()
                .map(|(name, value)| json!({"name": name, "type": "STRING", "value": value}))
                .collect(),
            Shape::Full | Shape::Thin => values
                .into_iter()
                .map(|(name, value)| (name.to_owned(), json!(value)))
                .collect(),
        }
    }

    /// A new id, as Fluent makes them.
    pub fn uuid(&mut self) -> String {
        let digits = format!("{:032x}", self.random.u128(..));
        let part = |from: usize, to: usize| &digits[from..to];
        format!(
            "{}-{}-{}-{}-{}",
            part(0, 8),
            part(8, 12),
            part(12, 16),
            part(16, 20),
            part(20, 32)
        )
    }
}

/// A JSON object with its keys in this order, whatever serde_json's features are.
pub(crate) fn object(fields: &[(&str, Value)]) -> Vec<u8> {
    let fields: Vec<String> = fields
        .iter()
        .map(|(key, value)| format!("{}:{value}", json!(key)))
        .collect();
    format!("{{{}}}", fields.join(",")).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_a_different_json_object() {
        let mut events = Events::new("ACME", 34, 1);
        let bodies: Vec<_> = (0..500).map(|_| events.any().body).collect();
        let distinct: std::collections::HashSet<_> = bodies.iter().collect();
        assert_eq!(distinct.len(), 500);
        for body in &bodies {
            let value: Value = serde_json::from_slice(body).unwrap();
            assert_eq!(value["accountId"], "ACME");
        }
    }

    #[test]
    fn a_seed_writes_the_same_again() {
        let write = |seed| {
            (0..20)
                .map(|_| ())
                .scan(Events::new("A", 1, seed), |events, ()| {
                    Some(events.any().body)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(write(7), write(7));
        assert_ne!(write(7), write(8));
    }
}
