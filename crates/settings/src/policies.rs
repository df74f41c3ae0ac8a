//! The limits of a route: `rate:` and `breaker:`.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};

use crate::values::DurationText;

/// Longest period of a rate, and longest cooldown of a breaker.
const LONGEST: Duration = Duration::from_hours(1);

/// `rate:` of a route: at most so many attempts in each process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(extend("examples" = [{ "events": 50, "per": "1s" }]))]
pub struct RateSettings {
    /// Number of attempts in each period.
    pub events: NonZeroU32,
    /// The period; 1s if it is left out.
    #[schemars(with = "Option<DurationText>")]
    pub per: Duration,
    /// Number of attempts that may begin at once after a pause; `events` if it is left out.
    #[schemars(with = "Option<NonZeroU32>")]
    pub burst: NonZeroU32,
}

/// `breaker:` of a route: when attempts stop for a while, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BreakerSettings {
    /// Different events that must have failed for it to open.
    pub failures: NonZeroU32,
    /// Share of all attempted events that must have failed, in percent.
    pub percent: NonZeroU32,
    /// Time within which they must have failed.
    pub window: Duration,
    /// Number of the last attempts among which they must be.
    pub samples: NonZeroU32,
    /// Time for which it stays open before one attempt probes the destination.
    pub cooldown: Duration,
    /// Longest such time: it doubles with each probe that fails.
    pub max_cooldown: Duration,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            failures: number(5),
            percent: number(50),
            window: Duration::from_mins(5),
            samples: number(50),
            cooldown: Duration::from_secs(1),
            max_cooldown: Duration::from_secs(30),
        }
    }
}

/// `breaker:` as it is written.
#[derive(Debug, JsonSchema)]
#[serde(untagged)]
pub(crate) enum BreakerListed {
    /// `off`: failures are never a reason to leave the destination alone.
    Off(Off),
    On(BreakerTable),
}

#[derive(Debug, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Off {
    Off,
}

/// What differs from the usual values.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct BreakerTable {
    /// It opens when this many different events failed; at least 2, default 5.
    failures: Option<NonZeroU32>,
    /// And when they are this share of the attempted events, in percent; default 50.
    percent: Option<NonZeroU32>,
    /// Only failures within this time count; default 5m.
    window: Option<DurationText>,
    /// Only the last attempts, this many, count; default 50.
    samples: Option<NonZeroU32>,
    /// How long it stays open before one attempt tests the destination; default 1s.
    cooldown: Option<DurationText>,
    /// The cooldown doubles with each such attempt that fails, up to this; default 30s.
    max_cooldown: Option<DurationText>,
}

impl BreakerListed {
    /// The breaker of a route: with the usual values if nothing is written, and none for `off`.
    pub(crate) fn settings(written: Option<Self>) -> Result<Option<BreakerSettings>, &'static str> {
        match written {
            Some(Self::Off(Off::Off)) => Ok(None),
            Some(Self::On(table)) => table.settings().map(Some),
            None => Ok(Some(BreakerSettings::default())),
        }
    }
}

impl BreakerTable {
    fn settings(self) -> Result<BreakerSettings, &'static str> {
        let usual = BreakerSettings::default();
        let cooldown = self.cooldown.map_or(usual.cooldown, |written| written.0);
        let max_cooldown = self
            .max_cooldown
            .map_or(usual.max_cooldown, |written| written.0);
        let settings = BreakerSettings {
            failures: self.failures.unwrap_or(usual.failures),
            percent: self.percent.unwrap_or(usual.percent),
            window: self.window.map_or(usual.window, |written| written.0),
            samples: self.samples.unwrap_or(usual.samples),
            cooldown,
            max_cooldown: if max_cooldown < cooldown {
                cooldown
            } else {
                max_cooldown
            },
        };
        settings.check().map(|()| settings)
    }
}

impl BreakerSettings {
    fn check(&self) -> Result<(), &'static str> {
        // One event that always fails must not stop the others.
        if self.failures.get() < 2 || self.failures > self.samples {
            return Err(
                "expected `failures` from 2, and not above `samples`: so many different events have to fail",
            );
        }
        if self.percent.get() > 100 || self.samples.get() > 10_000 {
            return Err("expected `percent` from 1 to 100, `samples` at most 10000");
        }
        if self.window.is_zero() || self.window > LONGEST {
            return Err("expected `window` above 0 and at most 1h");
        }
        if self.cooldown.is_zero() || self.max_cooldown > LONGEST {
            return Err("expected `cooldown` above 0, and both cooldowns at most 1h");
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for RateSettings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            events: NonZeroU32,
            per: Option<DurationText>,
            burst: Option<NonZeroU32>,
        }
        let Table { events, per, burst } = Table::deserialize(from)?;
        let per = per.map_or(Duration::from_secs(1), |written| written.0);
        if per.is_zero() || per > LONGEST || (per / events.get()).is_zero() {
            return Err(Error::custom(
                "expected `per` above 0 and at most 1h, and fewer events",
            ));
        }
        Ok(Self {
            events,
            per,
            burst: burst.unwrap_or(events),
        })
    }
}

impl<'de> Deserialize<'de> for BreakerListed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Written;

        impl<'de> Visitor<'de> for Written {
            type Value = BreakerListed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`off`, or a table such as { failures: 5, cooldown: 1s }")
            }

            fn visit_str<E: Error>(self, written: &str) -> Result<Self::Value, E> {
                match written {
                    "off" => Ok(BreakerListed::Off(Off::Off)),
                    _ => Err(E::invalid_value(Unexpected::Str(written), &self)),
                }
            }

            /// `off` is a boolean in older versions of YAML.
            fn visit_bool<E: Error>(self, is_on: bool) -> Result<Self::Value, E> {
                Ok(if is_on {
                    BreakerListed::On(BreakerTable::default())
                } else {
                    BreakerListed::Off(Off::Off)
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Self::Value, A::Error> {
                BreakerTable::deserialize(MapAccessDeserializer::new(table)).map(BreakerListed::On)
            }
        }

        from.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::SettingsTree;

    fn breaker(written: &str) -> Result<Option<BreakerSettings>, String> {
        let yaml = format!(
            "fluent-connect:\n  accounts: []\n  routes:\n    - {{ name: r, match: {{}}, dispatcher: log{written} }}\n"
        );
        let tree = SettingsTree::parse(Path::new("application.yml"), &yaml, [])
            .map_err(|error| error.to_string())?;
        let routes = tree.routes(None).map_err(|error| error.to_string())?;
        Ok(routes.0[0].breaker)
    }

    #[test]
    fn every_route_has_a_breaker_that_is_not_turned_off() {
        let usual = Ok(Some(BreakerSettings::default()));
        for written in ["", ", breaker: {}", ", breaker: ", ", breaker: true"] {
            assert_eq!(breaker(written), usual, "{written}");
        }
        for written in [", breaker: off", ", breaker: \"off\"", ", breaker: false"] {
            assert_eq!(breaker(written), Ok(None), "{written}");
        }
        let max_cooldown = Duration::from_secs(7);
        let some = BreakerSettings {
            max_cooldown,
            ..BreakerSettings::default()
        };
        assert_eq!(breaker(", breaker: { max-cooldown: 7s }"), Ok(Some(some)));
    }

    #[test]

    fn one_event_never_opens_it_whatever_is_written() {
        for (written, expected) in [
            (", breaker: { failures: 1 }", "from 2"),
            (
                ", breaker: { failures: 5, samples: 4 }",
                "not above `samples`",
            ),
            (", breaker: { window: 2h }", "`window`"),
            (", breaker: often", "`off`"),
            (", breaker: { failurs: 3 }", "did you mean `failures`"),
        ] {
            let said = breaker(written).unwrap_err();
            assert!(
                said.contains(expected) && said.contains("application.yml:4"),
                "{said}"
            );
        }
    }
}
