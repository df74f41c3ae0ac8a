//! The webhooks of the demo, with the outcome that each should have.

use std::time::Duration;

use simulator::api::Sending;
use simulator::{Answer, Attempted, Events, Shape, SignedBody};

use super::endpoints::{FAILS_TWICE, REFUSED};
use super::world::{ACCOUNT, World};

/// Paths of some routes' endpoints.
const SHOP: &str = "shop/hooks/fluent";
const MESSAGES: &str = "messages/v1/send";
const WAREHOUSE: &str = "warehouse/api/fulfilments";
pub(super) const PICKUP: &str = "messages/v1/pickup";

/// The outcome that a webhook should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Accepted, and delivered to this endpoint.
    Delivered(&'static str),
    /// Accepted as known, and not delivered again.
    Duplicate,
    /// Accepted, refused for good by its endpoint, and a dead letter.
    DeadLetter,
    /// Accepted, and stored as unrouted.
    Unrouted,
    /// Genuine and not an event: quarantined.
    Quarantined,
    /// Refused with this status.
    Refused(u16),
}

/// One webhook of the demo.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) name: String,
    pub(super) reference: String,
    pub(super) about: &'static str,
    pub(super) signed: SignedBody,
    pub(super) outcome: Outcome,
}

impl Scene {
    pub(super) fn headers(&self) -> [(&'static str, &str); 2] {
        [
            ("fluent-signature", &self.signed.sha512),
            ("flex.signature", &self.signed.md5),
        ]
    }
}

/// One webhook, with the service's answer.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) scene: Scene,
    pub(super) attempts: u32,
    pub(super) answer: Option<Answer>,
}

impl Sent {
    pub(super) fn new(scene: Scene, attempted: Attempted) -> Self {
        Self {
            scene,
            attempts: attempted.attempts,
            answer: attempted.answer,
        }
    }

    pub(super) fn status(&self) -> u16 {
        self.answer.as_ref().map_or(0, |answer| answer.status)
    }

    pub(super) fn event_id(&self) -> Option<&str> {
        self.answer.as_ref()?.body["eventId"].as_str()
    }

    pub(super) fn is_duplicate(&self) -> bool {
        self.answer
            .as_ref()
            .is_some_and(|answer| answer.body["duplicate"] == true)
    }
}

/// All webhooks of the demo, in their order.
pub(super) fn write(world: &World) -> anyhow::Result<Vec<Scene>> {
    let mut author = Author {
        world,
        events: Events::new(ACCOUNT, 34, 2026),
        scenes: Vec::new(),
    };
    author.everyday()?;
    author.collections()?;
    author.trouble()?;
    author.everyday()?;
    author.strangers()?;
    author.repeat(3);
    author.everyday()?;
    Ok(author.scenes)
}

/// Makes an order whose webhook Fluent could not send: it is only in Fluent's log.
pub(super) fn lose(world: &World) -> String {
    let order = world.orders.place_order();
    let _never_sent = world.orders.webhook_of(
        "OrderAwaitingCollection",
        &order,
        Duration::ZERO,
        Sending::Failed,
    );
    order.entity.reference
}

struct Author<'w> {
    world: &'w World,
    events: Events,
    scenes: Vec<Scene>,
}

impl Author<'_> {
    /// Webhooks for the five integrations: orders to the ERP and the shop, pickups to customers,
    /// fulfilments to the warehouse, consignments to the carrier.
    fn everyday(&mut self) -> anyhow::Result<()> {
        for shape in [Shape::Full, Shape::List, Shape::Thin] {
            self.delivered("OrderStatusChange", shape, SHOP)?;
            self.delivered("OrderReadyForPickup", shape, MESSAGES)?;
            let down = "its endpoint is down for 16 s";
            let delivered = Outcome::Delivered(WAREHOUSE);
            self.event("FulfilmentRequested", shape, None, down, delivered)?;
        }
        self.delivered("OrderBooked", Shape::Full, "erp/api/sales-orders")?;
        self.delivered("ConsignmentCreated", Shape::Full, "carrier/v2/bookings")?;
        self.delivered("ConsignmentBooked", Shape::List, "carrier/v2/labels")?;
        self.delivered("ManifestClosed", Shape::Thin, "carrier/v2/manifests")?;
        self.delivered("fc.connect.order.webhook.status-update", Shape::Full, SHOP)
    }

    /// Thin webhooks of orders in Fluent: the route asks Fluent for the customer, and posts an
    /// event back when it is done.
    fn collections(&mut self) -> anyhow::Result<()> {
        for _ in 0..2 {
            let order = self.world.orders.place_order();
            let signed = self
                .world
                .sandbox
                .sign(self.world.orders.webhook("OrderAwaitingCollection", &order))?;
            let about = "thin: Fluent's API says who to write to, and hears that it was done";
            self.add(
                "OrderAwaitingCollection",
                &order.entity.reference,
                about,
                signed,
                Outcome::Delivered(PICKUP),
            );
        }
        Ok(())
    }

    fn delivered(
        &mut self,
        name: &str,
        shape: Shape,
        endpoint: &'static str,
    ) -> anyhow::Result<()> {
        self.event(name, shape, None, "", Outcome::Delivered(endpoint))
    }

    /// Webhooks whose endpoints fail or refuse them.
    fn trouble(&mut self) -> anyhow::Result<()> {
        let twice = "its endpoint fails twice first";
        self.event(
            "OrderReadyForPickup",
            Shape::Full,
            Some(FAILS_TWICE),
            twice,
            Outcome::Delivered(MESSAGES),
        )?;
        self.event(
            "ReturnOrderCreated",
            Shape::Full,
            Some(REFUSED),
            "its endpoint answers 422",
            Outcome::DeadLetter,
        )?;
        self.event(
            "InventoryChanged",
            Shape::Thin,
            None,
            "no route matches it",
            Outcome::Unrouted,
        )
    }

    /// Webhooks that should not be accepted.
    fn strangers(&mut self) -> anyhow::Result<()> {
        let event = self.events.of("OrderStatusChange", Shape::Full);
        let forged = self.world.forger.sign(event.body.clone())?;
        self.add(
            &event.name,
            &event.entity_ref,
            "forged: signed with a key of nobody",
            forged,
            Outcome::Refused(401),
        );
        let other = self.world.production.sign(event.body.clone())?;
        self.add(
            &event.name,
            &event.entity_ref,
            "signed with another environment's key",
            other,
            Outcome::Refused(403),
        );
        let mut altered = self.world.sandbox.sign(event.body)?;
        altered.body.push(b'\n');
        self.add(
            &event.name,
            &event.entity_ref,
            "genuine, but a line end was added",
            altered,
            Outcome::Refused(401),
        );
        let stranger = Events::new("STRANGER", 34, 1).of("OrderStatusChange", Shape::Full);
        let signed = self.world.sandbox.sign(stranger.body)?;
        self.add(
            &stranger.name,
            &stranger.entity_ref,
            "genuine, of an account that is not listed",
            signed,
            Outcome::Refused(403),
        );
        let odd = self.world.sandbox.sign(format!(
            r#"{{"accountId":"{ACCOUNT}","entityRef":"NO_ID_1"}}"#
        ))?;
        self.add(
            "(no name)",
            "NO_ID_1",
            "genuine, but without id and name",
            odd,
            Outcome::Quarantined,
        );
        Ok(())
    }

    /// The first few webhooks again, as after an answer that got lost.
    fn repeat(&mut self, count: usize) {
        let again: Vec<Scene> = self.scenes.iter().take(count).cloned().collect();
        self.scenes.extend(again.into_iter().map(|scene| Scene {
            about: "sent before",
            outcome: Outcome::Duplicate,
            ..scene
        }));
    }

    fn event(
        &mut self,
        name: &str,
        shape: Shape,
        reference: Option<&str>,
        about: &'static str,
        outcome: Outcome,
    ) -> anyhow::Result<()> {
        let event = self.events.of(name, shape);
        let mut body = String::from_utf8(event.body)?;
        let mut known = event.entity_ref;
        if let Some(reference) = reference {
            body = body.replace(&known, reference);
            reference.clone_into(&mut known);
        }
        let signed = self.world.sandbox.sign(body)?;
        self.add(name, &known, about, signed, outcome);
        Ok(())
    }

    fn add(
        &mut self,
        name: &str,
        reference: &str,
        about: &'static str,
        signed: SignedBody,
        outcome: Outcome,
    ) {
        self.scenes.push(Scene {
            name: name.to_owned(),
            reference: reference.to_owned(),
            about,
            signed,
            outcome,
        });
    }
}
