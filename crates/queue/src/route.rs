//! A route and its filter: the fields and the condition that an event must match.

mod encoding;

use std::fmt;
use std::time::Duration;

use condition::{Condition, ConditionError};
use event_model::Event;
use sha2::{Digest, Sha256};

/// The reserved route of events that no other route matches.
pub const UNROUTED: &str = "unrouted";

/// A route, as a consumer joins it.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name, which is its durable identity.
    pub name: String,
    /// Filter for its events. May change between runs; a change applies to what is not yet
    /// delivered.
    pub filter: RouteFilter,
    /// Starting point of the route when it is joined for the first time.
    pub start: StartPosition,
    /// Longest time for which a delivery may be open without a sign of progress.
    pub lease: Duration,
}

/// Starting point of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPosition {
    /// The first event after the route was first joined.
    Now,
    /// The oldest stored event.
    Beginning,
}

/// Filter of a route: what it asks of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteFilter {
    /// Conditions that must be met.
    pub matching: MatchFields,
    /// Conditions of which none may be met: by these, [`UNROUTED`] is everything else.
    pub none_of: Vec<MatchFields>,
}

/// Conditions on an event's fields, all of which must be met. Each is a list of allowed values;
/// an empty list allows every value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the event's field of that name")]
pub struct MatchFields {
    pub event: Vec<String>,
    pub environment: Vec<String>,
    pub account: Vec<String>,
    pub retailer: Vec<String>,
    pub entity_type: Vec<String>,
    pub entity_subtype: Vec<String>,
    pub entity_status: Vec<String>,
    /// The event's origin: `webhook`, `reconciled`.
    pub origin: Vec<String>,
    /// A condition that must be met too.
    pub when: Option<Condition>,
}

/// One condition that is not met, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// A field has none of the allowed values.
    Field {
        /// Its name in `match`.
        field: &'static str,
        /// Its value, if it has one.
        found: Option<String>,
        /// The allowed values.
        wanted: Vec<String>,
    },
    /// The `when` condition is false.
    When,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field {
                field,
                found,
                wanted,
            } => {
                let found = found
                    .as_ref()
                    .map_or("absent".to_owned(), |found| format!("`{found}`"));
                write!(f, "{field} is {found}, expected {}", wanted.join(" or "))
            }
            Self::When => f.write_str("`when` is false"),
        }
    }
}

impl RouteFilter {
    /// Digest by which two filters are told apart: equal filters have equal digests.
    pub fn digest(&self) -> String {
        hex::encode(&Sha256::digest(encoding::of(self))[..16])
    }

    /// Whether the route gets this event. `true` if a condition gives no answer: the event is
    /// then delivered and becomes a dead letter, instead of being passed over.
    pub fn matches(&self, event: &Event) -> bool {
        self.decide(event).unwrap_or(true)
    }

    /// Decides as [`RouteFilter::matches`] does, but returns an error if a condition gives no answer.
    pub fn decide(&self, event: &Event) -> Result<bool, ConditionError> {
        let decided = self.matching.decide(event);
        match decided != Ok(false) && self.none_of.iter().any(|terms| terms.matches(event)) {
            true => Ok(false),
            false => decided,
        }
    }
}

impl From<MatchFields> for RouteFilter {
    fn from(matching: MatchFields) -> Self {
        Self {
            matching,
            none_of: Vec::new(),
        }
    }
}

impl MatchFields {
    /// Whether all conditions are met; one that gives no answer counts as met.
    pub fn matches(&self, event: &Event) -> bool {
        self.decide(event).unwrap_or(true)
    }

    /// Whether all conditions are met. `Err` if `when` gives no answer.
    pub fn decide(&self, event: &Event) -> Result<bool, ConditionError> {
        // `when` is not evaluated for events that it was not written for.
        match &self.when {
            _ if !self
                .fields(event)
                .into_iter()
                .all(|(_, wanted, value)| is_one_of(wanted, value)) =>
            {
                Ok(false)
            }
            Some(when) => when.holds(event),
            None => Ok(true),
        }
    }

    /// Lists the conditions that are not met. `Err` if `when` gives no answer.
    pub fn mismatches(&self, event: &Event) -> Result<Vec<Mismatch>, ConditionError> {
        let fields = self
            .fields(event)
            .into_iter()
            .filter(|(_, wanted, value)| !is_one_of(wanted, *value));
        let mut misses: Vec<Mismatch> = fields
            .map(|(field, wanted, found)| Mismatch::Field {
                field,
                found: found.map(str::to_owned),
                wanted: wanted.to_vec(),
            })
            .collect();
        // `when` is not evaluated for events that it was not written for.
        if let Some(when) = self.when.as_ref().filter(|_| misses.is_empty())
            && !when.holds(event)?
        {
            misses.push(Mismatch::When);
        }
        Ok(misses)
    }

    /// Each field: its name in `match`, its allowed values, and its value in the event.
    fn fields<'t>(
        &'t self,
        event: &'t Event,
    ) -> [(&'static str, &'t [String], Option<&'t str>); 8] {
        let fields = event.fields();
        [
            ("event", &self.event, fields.name.as_deref()),
            (
                "environment",
                &self.environment,
                Some(event.environment().as_str()),
            ),
            ("account", &self.account, fields.account.as_deref()),
            ("retailer", &self.retailer, fields.retailer.as_deref()),
            (
                "entity-type",
                &self.entity_type,
                fields.entity_type.as_deref(),
            ),
            (
                "entity-subtype",
                &self.entity_subtype,
                fields.entity_subtype.as_deref(),
            ),
            (
                "entity-status",
                &self.entity_status,
                fields.entity_status.as_deref(),
            ),
            ("origin", &self.origin, Some(event.origin().as_str())),
        ]
    }
}

fn is_one_of(wanted: &[String], value: Option<&str>) -> bool {
    wanted.is_empty() || value.is_some_and(|value| wanted.iter().any(|wanted| wanted == value))
}

#[cfg(test)]
mod tests;
