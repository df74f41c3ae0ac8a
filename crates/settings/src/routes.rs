//! `fluent-connect.routes`: the dispatcher, policy and outcome hooks of each route. Its match is
//! in `matching`.

use std::time::Duration;

use event_model::Origin;
use queue::{MatchFields, StartPosition, UNROUTED};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::SettingsError;
use crate::fluent_settings::{EnrichSettings, EntityCheckSource};
use crate::matching::MatchSettings;
use crate::policies::{BreakerListed, BreakerSettings, RateSettings};
use crate::tree::SettingsTree;
use crate::values::DurationText;

/// Most attempts at once on one route.
const MAX_CONCURRENCY: usize = 1024;

/// Every route, in the order listed.
#[derive(Clone, Debug)]
pub struct Routes(pub Vec<RouteSettings>);

/// One route.
#[derive(Clone, Debug)]
pub struct RouteSettings {
    /// The durable identity of the route.
    pub name: String,
    /// The events that it takes.
    pub terms: MatchFields,
    /// Values that its `match` lists more than once, such as `event: A`. Each counts once.
    pub repeated: Vec<String>,
    /// The position at which it begins when it is first seen.
    pub start: StartPosition,
    /// Most attempts at once, in this process.
    pub concurrency: usize,
    /// The retry of failed attempts.
    pub retry: RetrySettings,
    /// The rate at which attempts may begin, in this process; `None` for no limit.
    pub rate: Option<RateSettings>,
    /// The breaker, in this process; `None` for none.
    pub breaker: Option<BreakerSettings>,
    /// The question to Fluent about each event.
    pub enrich: Option<EnrichSettings>,
    /// The API that must confirm each event.
    pub entity_check: Option<EntityCheckSource>,
    /// The treatment of a second event with one Fluent id.
    pub same_id: OnSameId,
    /// The kind of its dispatcher.
    pub dispatcher: String,
    /// The dispatcher's own table, which only its process reads.
    pub table: Value,
    /// The outcome hook for delivered events, which gets the destination's answer.
    pub on_success: Option<OutcomeHookSettings>,
    /// The outcome hook for dead letters.
    pub on_dead_letter: Option<OutcomeHookSettings>,
}

/// `on-success:` or `on-dead-letter:` of a route: a dispatcher that is notified of each event's
/// outcome.
#[derive(Clone, Debug)]
pub struct OutcomeHookSettings {
    /// The kind of dispatcher.
    pub dispatcher: String,
    /// The dispatcher's own table.
    pub table: Value,
}

/// The same as it is written, without its table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawOutcomeHook {
    /// The kind of dispatcher; its settings are in a table of this name.
    dispatcher: String,
}

/// `retry:` of a route.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RetrySettings {
    /// The wait before the second attempt.
    #[serde(with = "crate::values::duration")]
    #[schemars(with = "DurationText")]
    pub initial: Duration,
    /// The longest wait between two attempts: each is twice the one before, up to this.
    #[serde(with = "crate::values::duration")]
    #[schemars(with = "DurationText")]
    pub max_delay: Duration,
    /// Time after the first attempt at which the event becomes a dead letter.
    #[serde(with = "crate::values::duration")]
    #[schemars(with = "DurationText")]
    pub max_elapsed: Duration,
    /// Number of attempts that asked the destination after which the event becomes a dead
    /// letter; left out, only `max-elapsed` counts.
    #[schemars(range(min = 1))]
    pub attempts: Option<u32>,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max_delay: Duration::from_hours(1),
            max_elapsed: Duration::from_hours(72),
            attempts: None,
        }
    }
}

impl RetrySettings {
    /// The key that does not fit, and why.
    fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if self.initial.is_zero() {
            return Err(("initial", "expected a duration above 0, such as 1s"));
        }
        if self.initial > self.max_delay {
            let why = "is above `max-delay` (1h if it is left out): expected a first wait that is not above the longest";
            return Err(("initial", why));
        }
        if self.attempts == Some(0) {
            return Err(("attempts", "expected a whole number from 1"));
        }
        Ok(())
    }
}

/// One of `fluent-connect.routes`, without its dispatcher's table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRoute {
    /// The route's name: 1 to 64 lowercase letters, digits and hyphens. Its position is stored
    /// under this name, so a renamed route is a new one.
    name: String,
    /// The events that this route takes: all conditions must hold; `{}` matches every event.
    #[serde(rename = "match")]
    matching: MatchSettings,
    /// Where its events may come from: `webhook`, or `reconciled` too, for those whose webhook
    /// never arrived and that were found in Fluent's event log.
    #[serde(default = "webhooks")]
    #[schemars(with = "Vec<String>", length(min = 1))]
    origins: Vec<Origin>,
    /// The kind of dispatcher that delivers, such as `http`; its settings are in a table of this
    /// name.
    dispatcher: String,
    /// Most attempts at the same time, in each process.
    #[serde(default = "default_concurrency")]
    #[schemars(range(min = 1, max = 1024))]
    concurrency: usize,
    /// Which events a new route begins with: `now` for new ones only, `beginning` for all that
    /// are stored. It counts once, when the route is first started.
    #[serde(default)]
    start: StartSettings,
    /// The waits between attempts, and when to give up.
    #[serde(default)]
    retry: RetrySettings,
    /// The rate limit of attempts, in each process; left out, there is none.
    rate: Option<RateSettings>,
    /// The circuit breaker, which stops attempts while the destination fails; left out, the
    /// defaults apply; `off` turns it off.
    breaker: Option<BreakerListed>,
    /// A GraphQL query to Fluent's API about each event; the answer is delivered with it.
    enrich: Option<EnrichSettings>,
    /// `fluent`: an event is delivered only if Fluent's API knows its entity.
    #[serde(rename = "entity-check")]
    entity_check: Option<EntityCheckSource>,
    /// What to do with an event whose account, Fluent id and name are those of another with a
    /// different body: `deliver` it too, or `skip` it once the other is delivered.
    #[serde(default, rename = "same-id")]
    same_id: OnSameId,
    /// A second dispatcher that is called after an event was delivered, with the destination's
    /// answer: `{ dispatcher: fluent, fluent: { ... } }`, for example.
    #[serde(rename = "on-success")]
    #[schemars(with = "Option<Map<String, Value>>")]
    on_success: Option<Value>,
    /// The same, after an event became a dead letter.
    #[serde(rename = "on-dead-letter")]
    #[schemars(with = "Option<Map<String, Value>>")]
    on_dead_letter: Option<Value>,
}

fn webhooks() -> Vec<Origin> {
    vec![Origin::Webhook]
}

fn default_concurrency() -> usize {
    16
}

/// What a route does with an event whose account, Fluent id and name another one has too, with a
/// different body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnSameId {
    /// Both are delivered: two rules may have sent two.
    #[default]
    Deliver,
    /// One is delivered: whichever the destination takes first.
    Skip,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum StartSettings {
    #[default]
    Now,
    Beginning,
}

impl SettingsTree {
    /// Reads one route, without its dispatcher's table.
    pub(crate) fn route(
        &self,
        path: &[&str],
        mut value: Value,
    ) -> Result<RouteSettings, SettingsError> {
        let table = take_table(&mut value);
        let RawRoute {
            on_success,
            on_dead_letter,
            name,
            matching,
            origins,
            dispatcher,
            concurrency,
            start,
            retry,
            rate,
            breaker,
            enrich,
            entity_check,
            same_id,
        } = self.read(path, &value)?;
        let at = |key| [path, &[key]].concat();
        if !is_name(&name) || name == UNROUTED {
            let why = format!(
                "expected 1 to 64 lowercase letters, digits and hyphens, and not `{UNROUTED}`"
            );
            return Err(self.invalid(&at("name"), &why));
        }
        if !(1..=MAX_CONCURRENCY).contains(&concurrency) {
            return Err(self.invalid(
                &at("concurrency"),
                &format!("expected 1 to {MAX_CONCURRENCY}"),
            ));
        }
        if let Err((key, why)) = retry.check() {
            return Err(self.invalid(&[&at("retry")[..], &[key]].concat(), why));
        }
        let breaker =
            BreakerListed::settings(breaker).map_err(|why| self.invalid(&at("breaker"), why))?;
        let start = match start {
            StartSettings::Now => StartPosition::Now,
            StartSettings::Beginning => StartPosition::Beginning,
        };
        if let Some(enrich) = &enrich {
            self.check_enrich(&at("enrich"), enrich)?;
        }
        let on_success = self.then(&at("on-success"), on_success)?;
        let on_dead_letter = self.then(&at("on-dead-letter"), on_dead_letter)?;
        if origins.is_empty() {
            return Err(self.invalid(&at("origins"), "expected webhook, reconciled, or both"));
        }
        let mut origin: Vec<String> = Vec::new();
        for name in origins.iter().map(|origin| origin.as_str().to_owned()) {
            if !origin.contains(&name) {
                origin.push(name);
            }
        }
        let repeated = matching.repeated();
        let terms = MatchFields {
            origin,
            ..self.terms(&at("match"), matching)?
        };
        if let Some(entity_check) = entity_check {
            entity_check
                .check(&terms.entity_type)
                .map_err(|why| self.invalid(&at("entity-check"), &why))?;
        }
        Ok(RouteSettings {
            name,
            terms,
            repeated,
            start,
            concurrency,
            retry,
            rate,
            breaker,
            enrich,
            entity_check,
            same_id,
            dispatcher,
            table,
            on_success,
            on_dead_letter,
        })
    }

    fn then(
        &self,
        path: &[&str],
        written: Option<Value>,
    ) -> Result<Option<OutcomeHookSettings>, SettingsError> {
        let Some(mut value) = written else {
            return Ok(None);
        };
        let table = take_table(&mut value);
        let RawOutcomeHook { dispatcher } = self.read(path, &value)?;
        Ok(Some(OutcomeHookSettings { dispatcher, table }))
    }
}

/// Takes the dispatcher's own table out of a route, empty if there is none.
pub(crate) fn take_table(route: &mut Value) -> Value {
    let kind = route
        .get("dispatcher")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let table = kind.and_then(|kind| route.as_object_mut()?.remove(&kind));
    table
        .filter(|table| !table.is_null())
        .unwrap_or_else(|| Value::Object(Map::default()))
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=64).contains(&name.len()) && name.chars().all(plain)
}

#[cfg(test)]
mod tests;
