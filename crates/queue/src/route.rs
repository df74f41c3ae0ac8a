use std::time::Duration;

use event_model::Event;

/// The reserved route of what no other route matches.
pub const UNROUTED: &str = "unrouted";

/// What a consumer asks for.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its durable identity.
    pub name: String,
    /// Which events it gets. May change between runs; the change applies to
    /// what is not yet delivered.
    pub filter: Filter,
    /// Where it begins when it is first seen.
    pub start: Start,
    /// How long a delivery may be held without a sign of progress.
    pub lease: Duration,
}

/// Where a route begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first event after the route was first seen.
    Now,
    /// With the oldest event kept.
    Beginning,
}

/// Which events a route gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// What must hold.
    pub matching: Terms,
    /// None of these may hold: how [`UNROUTED`] is everything else.
    pub none_of: Vec<Terms>,
}

/// Conditions on an event's fields. All must hold; each is a list of values of
/// which one must be equal; an empty list holds always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the event's field of that name")]
pub struct Terms {
    pub event: Vec<String>,
    pub environment: Vec<String>,
    pub account: Vec<String>,
    pub retailer: Vec<String>,
    pub entity_type: Vec<String>,
    pub entity_subtype: Vec<String>,
    pub entity_status: Vec<String>,
}

impl Filter {
    /// Whether the route gets this event.
    pub fn matches(&self, event: &Event) -> bool {
        self.matching.hold(event) && !self.none_of.iter().any(|terms| terms.hold(event))
    }
}

impl From<Terms> for Filter {
    fn from(matching: Terms) -> Self {
        Self { matching, none_of: Vec::new() }
    }
}

impl Terms {
    /// Whether all conditions hold.
    pub fn hold(&self, event: &Event) -> bool {
        let fields = event.fields();
        [
            (&self.event, fields.name.as_deref()),
            (&self.environment, Some(event.environment().as_str())),
            (&self.account, fields.account.as_deref()),
            (&self.retailer, fields.retailer.as_deref()),
            (&self.entity_type, fields.entity_type.as_deref()),
            (&self.entity_subtype, fields.entity_subtype.as_deref()),
            (&self.entity_status, fields.entity_status.as_deref()),
        ]
        .into_iter()
        .all(|(wanted, value)| {
            wanted.is_empty() || value.is_some_and(|value| wanted.iter().any(|w| w == value))
        })
    }
}
