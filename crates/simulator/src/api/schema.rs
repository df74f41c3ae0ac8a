//! Fluent's queries for the entities in webhooks: older ones by id, newer ones by ref.

use std::sync::Arc;

use async_graphql::{
    Context, EmptyMutation, EmptySubscription, Error, ErrorExtensions, ID, InputObject, Json,
    Object, Result, Schema, SimpleObject,
};
use serde_json::Value;

use crate::api::Shared;
use crate::api::world::{Entity, Order};

pub(crate) type Api = Schema<Query, EmptyMutation, EmptySubscription>;

/// The schema. Its resolvers read the shared world.
pub(crate) fn schema() -> Api {
    // About the bound that Fluent has.
    Schema::build(Query, EmptyMutation, EmptySubscription)
        .limit_complexity(11_111)
        .finish()
}

#[derive(Debug)]
pub(crate) struct Query;

/// The retailer argument of a query.
#[derive(Debug, InputObject)]
struct RetailerKey {
    id: ID,
}

/// The catalogue argument of a query.
#[derive(Debug, InputObject)]
struct CatalogueKey {
    #[graphql(name = "ref")]
    reference: String,
}

#[derive(Debug, SimpleObject)]
struct Attribute {
    name: String,
    #[graphql(name = "type")]
    kind: String,
    value: Json<Value>,
}

#[derive(Debug, SimpleObject)]
struct Customer {
    first_name: String,
    primary_email: String,
}

#[derive(Debug, SimpleObject)]
struct Item {
    #[graphql(name = "ref")]
    reference: String,
    quantity: u32,
}

#[derive(Debug, SimpleObject)]
#[graphql(
    concrete(name = "ItemConnection", params(ItemEdge)),
    concrete(name = "FulfilmentConnection", params(FulfilmentEdge))
)]
struct Connection<E: async_graphql::OutputType> {
    edges: Vec<E>,
}

#[derive(Debug, SimpleObject)]
struct ItemEdge {
    node: Item,
}

#[derive(Debug, SimpleObject)]
struct FulfilmentEdge {
    node: Entity,
}

struct FoundOrder(Order);

#[Object(name = "Order")]
impl FoundOrder {
    async fn id(&self) -> ID {
        ID(self.0.entity.id.clone())
    }
    #[graphql(name = "ref")]
    async fn reference(&self) -> &str {
        &self.0.entity.reference
    }
    #[graphql(name = "type")]
    async fn subtype(&self) -> &str {
        &self.0.entity.subtype
    }
    async fn status(&self) -> &str {
        &self.0.entity.status
    }
    async fn created_on(&self) -> &str {
        &self.0.entity.created_on
    }
    async fn updated_on(&self) -> &str {
        &self.0.entity.updated_on
    }
    async fn customer(&self) -> Customer {
        Customer {
            first_name: self.0.first_name.clone(),
            primary_email: self.0.email.clone(),
        }
    }
    async fn items(&self) -> Connection<ItemEdge> {
        let item = |(reference, quantity): &(String, u32)| ItemEdge {
            node: Item {
                reference: reference.clone(),
                quantity: *quantity,
            },
        };
        Connection {
            edges: self.0.items.iter().map(item).collect(),
        }
    }
    async fn fulfilments(&self) -> Connection<FulfilmentEdge> {
        Connection {
            edges: self
                .0
                .fulfilments
                .iter()
                .map(|node| FulfilmentEdge { node: node.clone() })
                .collect(),
        }
    }
    async fn attributes(&self) -> Vec<Attribute> {
        let attribute = |(name, value): (&String, &Value)| Attribute {
            name: name.clone(),
            kind: "STRING".to_owned(),
            value: Json(value.clone()),
        };
        self.0.attributes.iter().map(attribute).collect()
    }
}

struct FoundFulfilment(Order, Entity);

#[Object(name = "Fulfilment")]
impl FoundFulfilment {
    async fn id(&self) -> ID {
        ID(self.1.id.clone())
    }
    #[graphql(name = "ref")]
    async fn reference(&self) -> &str {
        &self.1.reference
    }
    #[graphql(name = "type")]
    async fn subtype(&self) -> &str {
        &self.1.subtype
    }
    async fn status(&self) -> &str {
        &self.1.status
    }
    async fn updated_on(&self) -> &str {
        &self.1.updated_on
    }
    async fn order(&self) -> FoundOrder {
        FoundOrder(self.0.clone())
    }
}

#[Object]
impl Query {
    async fn order_by_id(&self, cx: &Context<'_>, id: ID) -> Result<FoundOrder> {
        let (shared, hidden) = world(cx)?;
        shared
            .world
            .order(&id, hidden)
            .map(FoundOrder)
            .ok_or_else(not_found)
    }
    async fn fulfilment_by_id(&self, cx: &Context<'_>, id: ID) -> Result<FoundFulfilment> {
        let (shared, hidden) = world(cx)?;
        let found = shared.world.fulfilment(&id, hidden);
        found
            .map(|(order, part)| FoundFulfilment(order, part))
            .ok_or_else(not_found)
    }
    async fn article_by_id(&self, cx: &Context<'_>, id: ID) -> Result<Entity> {
        other(cx, "ARTICLE", &id)
    }
    async fn consignment_by_id(&self, cx: &Context<'_>, id: ID) -> Result<Entity> {
        other(cx, "CONSIGNMENT", &id)
    }
    async fn wave_by_id(&self, cx: &Context<'_>, id: ID) -> Result<Entity> {
        other(cx, "WAVE", &id)
    }
    async fn location_by_id(&self, cx: &Context<'_>, id: ID) -> Result<Entity> {
        other(cx, "LOCATION", &id)
    }
    async fn return_order(
        &self,
        cx: &Context<'_>,
        r#ref: String,
        retailer: RetailerKey,
    ) -> Result<Entity> {
        drop(retailer.id);
        other(cx, "RETURN_ORDER", &r#ref)
    }
    async fn billing_account(&self, cx: &Context<'_>, r#ref: String) -> Result<Entity> {
        other(cx, "BILLING_ACCOUNT", &r#ref)
    }
    async fn invoice(&self, cx: &Context<'_>, r#ref: String) -> Result<Entity> {
        other(cx, "INVOICE", &r#ref)
    }
    async fn inventory_position(
        &self,
        cx: &Context<'_>,
        r#ref: String,
        catalogue: CatalogueKey,
    ) -> Result<Entity> {
        drop(catalogue.reference);
        other(cx, "INVENTORY_POSITION", &r#ref)
    }
}

fn world<'c>(cx: &Context<'c>) -> Result<(&'c Shared, std::time::Duration)> {
    let shared = cx.data::<Arc<Shared>>()?;
    Ok((shared, shared.conduct.now().invisible_for))
}

fn other(cx: &Context<'_>, kind: &str, name: &str) -> Result<Entity> {
    let (shared, hidden) = world(cx)?;
    shared.world.other(kind, name, hidden).ok_or_else(not_found)
}

fn not_found() -> Error {
    Error::new("simulated: not found").extend_with(|_, more| more.set("code", "C0120E"))
}
