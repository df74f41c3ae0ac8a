mod encoding;

use std::fmt;
use std::time::Duration;

use condition::{Condition, Undecided};
use event_model::Event;
use sha2::{Digest, Sha256};

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
    /// How it came: `webhook`, `reconciled`.
    pub origin: Vec<String>,
    /// An expression that must hold too.
    pub when: Option<Condition>,
}

/// One condition that does not hold, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// A field has another value.
    Field {
        /// Its name in `match`.
        field: &'static str,
        /// What it is.
        found: Option<String>,
        /// What it may be.
        wanted: Vec<String>,
    },
    /// The expression says no.
    When,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field { field, found, wanted } => {
                let found = found.as_ref().map_or("absent".to_owned(), |found| format!("`{found}`"));
                write!(f, "{field} is {found}, expected {}", wanted.join(" or "))
            }
            Self::When => f.write_str("`when` is false"),
        }
    }
}

impl Filter {
    /// Names the filter: two that differ have different ones.
    pub fn digest(&self) -> String {
        hex::encode(&Sha256::digest(encoding::of(self))[..16])
    }

    /// Whether the route gets this event. It does where an expression gives no
    /// answer: who delivers must see that, and not pass over it.
    pub fn matches(&self, event: &Event) -> bool {
        self.decide(event).unwrap_or(true)
    }

    /// The same, and where the expression gives no answer, why.
    pub fn decide(&self, event: &Event) -> Result<bool, Undecided> {
        let decided = self.matching.decide(event);
        match decided != Ok(false) && self.none_of.iter().any(|terms| terms.hold(event)) {
            true => Ok(false),
            false => decided,
        }
    }
}

impl From<Terms> for Filter {
    fn from(matching: Terms) -> Self {
        Self { matching, none_of: Vec::new() }
    }
}

impl Terms {
    /// Whether all conditions hold, as far as they give an answer.
    pub fn hold(&self, event: &Event) -> bool {
        self.decide(event).unwrap_or(true)
    }

    /// Whether all conditions hold. `Err` where the expression gives no answer.
    pub fn decide(&self, event: &Event) -> Result<bool, Undecided> {
        // Not asked about events that it was not written for.
        match &self.when {
            _ if !self.fields(event).into_iter().all(|(_, wanted, value)| is_one_of(wanted, value)) => {
                Ok(false)
            }
            Some(when) => when.holds(event),
            None => Ok(true),
        }
    }

    /// Those that do not hold. `Err` where the expression gives no answer.
    pub fn misses(&self, event: &Event) -> Result<Vec<Miss>, Undecided> {
        let fields = self.fields(event).into_iter().filter(|(_, wanted, value)| !is_one_of(wanted, *value));
        let mut misses: Vec<Miss> = fields
            .map(|(field, wanted, found)| Miss::Field {
                field,
                found: found.map(str::to_owned),
                wanted: wanted.to_vec(),
            })
            .collect();
        // Not asked about events that it was not written for.
        if let Some(when) = self.when.as_ref().filter(|_| misses.is_empty())
            && !when.holds(event)?
        {
            misses.push(Miss::When);
        }
        Ok(misses)
    }

    /// Each by its name in `match`, with what is wanted of it, and what it is.
    fn fields<'t>(&'t self, event: &'t Event) -> [(&'static str, &'t [String], Option<&'t str>); 8] {
        let fields = event.fields();
        [
            ("event", &self.event, fields.name.as_deref()),
            ("environment", &self.environment, Some(event.environment().as_str())),
            ("account", &self.account, fields.account.as_deref()),
            ("retailer", &self.retailer, fields.retailer.as_deref()),
            ("entity-type", &self.entity_type, fields.entity_type.as_deref()),
            ("entity-subtype", &self.entity_subtype, fields.entity_subtype.as_deref()),
            ("entity-status", &self.entity_status, fields.entity_status.as_deref()),
            ("origin", &self.origin, Some(event.origin().as_str())),
        ]
    }
}

fn is_one_of(wanted: &[String], value: Option<&str>) -> bool {
    wanted.is_empty() || value.is_some_and(|value| wanted.iter().any(|wanted| wanted == value))
}

#[cfg(test)]
mod tests;
