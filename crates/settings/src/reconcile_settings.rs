//! `fluent-connect.reconcile`: the events and accounts whose log in Fluent is compared.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use event_model::{KNOWN_FIELDS, Origin};
use schemars::JsonSchema;
use serde::Deserialize;
use verifier::SealingKey;

use crate::error::SettingsError;
use crate::fluent_settings::ApiAccount;
use crate::queue_settings::QueueSettings;
use crate::routes::{RouteSettings, Routes};
use crate::section::nearest;
use crate::tree::SettingsTree;
use crate::values::DurationText;

const PATH: [&str; 2] = ["fluent-connect", "reconcile"];

/// Most names: each takes a request of its own.
const MOST_EVENTS: usize = 64;

/// Smallest age: Fluent gives up a webhook 14 s after its first try. Gateways with spools write
/// their watermark only every few seconds, and not up to the newest event.
const SHORTEST_AGE: Duration = Duration::from_secs(15);
const SHORTEST_ON_A_CLUSTER: Duration = Duration::from_secs(45);
const LONGEST_AGE: Duration = Duration::from_hours(48);

const INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24);

/// The range of `lookback`: it ends where the record of what was reconciled ends.
const LOOKBACK: RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(30 * 24);

/// `fluent-connect.reconcile`, as it is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RawReconcileSettings {
    /// Names of the events that Fluent sends as webhooks.
    event_names: Vec<String>,
    /// Names of accounts; left out, every account that has an `api`.
    accounts: Option<Vec<String>>,
    /// Time between two comparisons.
    #[serde(default = "interval")]
    #[schemars(with = "DurationText")]
    #[serde(with = "crate::values::duration")]
    interval: Duration,
    /// How far into the past the first comparison goes.
    #[serde(default = "lookback")]
    #[schemars(with = "DurationText")]
    #[serde(with = "crate::values::duration")]
    lookback: Duration,
    /// Age from which an event counts as missing: Fluent tries for 14 s, or for a day where a
    /// workflow says so.
    #[serde(default = "min_age")]
    #[schemars(with = "DurationText")]
    #[serde(with = "crate::values::duration")]
    min_age: Duration,
}

fn interval() -> Duration {
    Duration::from_mins(15)
}

fn lookback() -> Duration {
    Duration::from_hours(24)
}

fn min_age() -> Duration {
    Duration::from_mins(2)
}

/// `fluent-connect.reconcile`: the events and accounts to compare.
#[derive(Clone, Debug)]
pub struct ReconcileSettings {
    /// Names of the events.
    pub event_names: Vec<String>,
    /// The accounts to compare.
    pub accounts: Vec<ApiAccount>,
    /// Time between two comparisons.
    pub interval: Duration,
    /// Time to look back at the first comparison.
    pub lookback: Duration,
    /// Age from which an event counts as missing.
    pub min_age: Duration,
    /// The key that seals reconciled events, or `None` if dispatchers do not reverify.
    pub seal: Option<Arc<SealingKey>>,
}

impl SettingsTree {
    /// The comparison's settings, if there are any. At least one route must take what is found.
    pub fn reconcile(&self, routes: &Routes) -> Result<Option<ReconcileSettings>, SettingsError> {
        if self.at(&PATH).is_none_or(|node| node.value().is_null()) {
            return Ok(None);
        }
        let RawReconcileSettings {
            event_names,
            accounts,
            interval,
            lookback,
            min_age,
        } = self.section(&PATH)?;
        self.check_times(interval, lookback, min_age)?;
        self.check_events(&event_names, routes)?;
        let accounts = self.asked(accounts)?;
        let seal = self.sealing_key()?;
        Ok(Some(ReconcileSettings {
            event_names,
            accounts,
            interval,
            lookback,
            min_age,
            seal,
        }))
    }

    /// The comparison's settings.
    ///
    /// # Errors
    /// If there are none, or they are not valid.
    pub fn required_reconcile(&self, routes: &Routes) -> Result<ReconcileSettings, SettingsError> {
        let missing = "expected the names of the events that Fluent sends as webhooks: reconcile: { event-names: [...] }";
        self.reconcile(routes)?
            .ok_or_else(|| self.invalid(&PATH, missing))
    }

    fn check_times(
        &self,
        interval: Duration,
        lookback: Duration,
        min_age: Duration,
    ) -> Result<(), SettingsError> {
        let (shortest, expected) = match self.queue()? {
            QueueSettings::Embedded(_) => (
                SHORTEST_AGE,
                "expected 15s to 48h: Fluent itself tries for 14 s",
            ),
            QueueSettings::JetStream(_) => (
                SHORTEST_ON_A_CLUSTER,
                "expected 45s to 48h: Fluent tries for 14 s, and then it may be in a spool",
            ),
        };
        for (key, time, bounds, expected) in [
            ("interval", interval, INTERVALS, "expected 1s to 24h"),
            ("min-age", min_age, shortest..=LONGEST_AGE, expected),
            ("lookback", lookback, LOOKBACK, "expected 1m to 30d"),
        ] {
            if !bounds.contains(&time) {
                return Err(self.invalid(&[PATH[0], PATH[1], key], expected));
            }
        }
        Ok(())
    }

    fn check_events(&self, events: &[String], routes: &Routes) -> Result<(), SettingsError> {
        let at = [PATH[0], PATH[1], "event-names"];
        if events.is_empty() || events.len() > MOST_EVENTS || events.iter().any(String::is_empty) {
            return Err(self.invalid(&at, &format!("expected 1 to {MOST_EVENTS} names of events")));
        }
        for (index, event) in events.iter().enumerate() {
            let why = match event {
                event if events[..index].contains(event) => {
                    "it is listed twice: expected each name once"
                }
                event
                    if routes
                        .0
                        .iter()
                        .any(|route| route.may_take_reconciled(event)) =>
                {
                    continue;
                }
                _ => {
                    "no route takes it: expected one with `origins: [webhook, reconciled]` that matches this event"
                }
            };
            return Err(self.invalid(&[&at[..], &[&index.to_string()]].concat(), why));
        }
        Ok(())
    }

    fn asked(&self, named: Option<Vec<String>>) -> Result<Vec<ApiAccount>, SettingsError> {
        let known = self.apis()?;
        let at = [PATH[0], PATH[1], "accounts"];
        if known.is_empty() {
            return Err(self.invalid(&PATH, "no account has an `api`: there is nobody to ask"));
        }
        let Some(named) = named else { return Ok(known) };
        if named.is_empty() {
            return Err(self.invalid(
                &at,
                "expected names, or nothing for every account with an `api`",
            ));
        }
        for (index, name) in named.iter().enumerate() {
            if !known.iter().any(|account| account.name == *name) {
                let hint = nearest(name, known.iter().map(|account| &*account.name));
                let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
                let why = format!("expected the name of an account with an `api`{hint}");
                return Err(self.invalid(&[&at[..], &[&index.to_string()]].concat(), &why));
            }
        }
        Ok(known
            .into_iter()
            .filter(|account| named.contains(&account.name))
            .collect())
    }
}

impl Routes {
    /// Warnings about routes that are valid and may surprise, for the start and for `check`.
    pub fn warnings(&self) -> Vec<String> {
        let of_route = |route: &RouteSettings| {
            [
                route.listed_twice(),
                route.not_in_the_log(),
                route.unknown_fields(),
                route.texts_as_numbers(),
            ]
            .concat()
        };
        self.0.iter().flat_map(of_route).collect()
    }
}

impl RouteSettings {
    /// True if the route takes reconciled events.
    pub fn takes_reconciled(&self) -> bool {
        self.terms
            .origin
            .iter()
            .any(|origin| origin == Origin::Reconciled.as_str())
    }

    /// True if a reconciled event of this name may match the route.
    fn may_take_reconciled(&self, event: &str) -> bool {
        let names = &self.terms.event;
        self.takes_reconciled() && (names.is_empty() || names.iter().any(|name| name == event))
    }

    /// Warnings about values listed twice in a match: perhaps another value was meant.
    fn listed_twice(&self) -> Vec<String> {
        if self.repeated.is_empty() {
            return Vec::new();
        }
        let repeated: Vec<_> = self
            .repeated
            .iter()
            .map(|value| format!("`{value}`"))
            .collect();
        let name = &self.name;
        let repeated = repeated.join(", ");
        vec![format!(
            "`match` of route {name} lists {repeated} more than once: once is enough"
        )]
    }

    /// Warnings about fields in `when` that Fluent's events do not have: each event that lacks one
    /// becomes a dead letter of the route.
    fn unknown_fields(&self) -> Vec<String> {
        let fields = self
            .terms
            .when
            .iter()
            .flat_map(|when| when.unknown_fields());
        let name = &self.name;
        let known = KNOWN_FIELDS.join(", ");
        let warning = |field: &str| {
            format!(
                "`when` of route {name} asks for event.{field}, which is no field of Fluent's events: {known}; if your rules add it, ask has(event.{field}) first, or events without it become dead letters"
            )
        };
        fields.map(warning).collect()
    }

    /// Warnings about fields in `when` that are texts and are compared with numbers.
    fn texts_as_numbers(&self) -> Vec<String> {
        let when = self.terms.when.iter();
        let fields = when.flat_map(|when| when.texts_as_numbers());
        let name = &self.name;
        let warning = |field: &String| {
            format!(
                "`when` of route {name} compares {field} with a number, and Fluent sends a text: write the number in quotes, as {field} == \"34\"; else it is never equal, and with < or > the event becomes a dead letter"
            )
        };
        fields.map(warning).collect()
    }

    /// Warnings about fields that the route matches on and that Fluent's log does not have.
    fn not_in_the_log(&self) -> Vec<String> {
        if !self.takes_reconciled() {
            return Vec::new();
        }
        let name = &self.name;
        let terms = &self.terms;
        let when = terms.when.as_ref().map_or("", |when| when.text());
        let mut said = Vec::new();
        for (key, wanted, field) in [
            ("entity-status", &terms.entity_status, "entityStatus"),
            ("entity-subtype", &terms.entity_subtype, "entitySubtype"),
        ] {
            if !wanted.is_empty() {
                said.push(format!("route {name} matches on {key}, which Fluent's log does not have: what is reconciled will not reach it"));
            } else if when.contains(field) {
                said.push(format!("`when` of route {name} asks for {field}, which Fluent's log does not have: what is reconciled stays out, or is a dead letter of it, unless it asks has(event.{field}) first"));
            }
        }
        said
    }
}
