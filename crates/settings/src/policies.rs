//! How much, and when not: `rate:` and `breaker:` of a route.

use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

use crate::values::Time;

/// Longest period of a rate, and longest rest of a breaker.
const LONGEST: Duration = Duration::from_hours(1);

/// `rate:` of a route: at most so many attempts in each process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
pub struct RateSettings {
    /// Attempts in a period.
    pub events: NonZeroU32,
    /// The period.
    pub per: Time,
    /// Attempts at once after a pause.
    pub burst: NonZeroU32,
}

/// `breaker:` of a route: when its destination is left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, JsonSchema)]
pub struct BreakerSettings {
    /// It opens after so many failures in a row,
    pub failures: NonZeroU32,
    /// or when this share of the last attempts failed, in percent,
    pub percent: NonZeroU32,
    /// which is counted over so many.
    pub of: NonZeroU32,
    /// How long it stays open before one attempt is made.
    pub rest: Time,
    /// It doubles with each attempt that fails, up to this.
    pub longest_rest: Time,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            failures: number(10),
            percent: number(50),
            of: number(50),
            rest: Time(Duration::from_secs(10)),
            longest_rest: Time(Duration::from_mins(5)),
        }
    }
}

impl<'de> Deserialize<'de> for RateSettings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            events: NonZeroU32,
            per: Option<Time>,
            burst: Option<NonZeroU32>,
        }
        let Table { events, per, burst } = Table::deserialize(from)?;
        let per = per.unwrap_or(Time(Duration::from_secs(1)));
        if per.0.is_zero() || per.0 > LONGEST || (per.0 / events.get()).is_zero() {
            return Err(Error::custom("expected `per` above 0 and at most 1h, and fewer events"));
        }
        Ok(Self { events, per, burst: burst.unwrap_or(events) })
    }
}

impl<'de> Deserialize<'de> for BreakerSettings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
        struct Table {
            failures: Option<NonZeroU32>,
            percent: Option<NonZeroU32>,
            of: Option<NonZeroU32>,
            rest: Option<Time>,
            longest_rest: Option<Time>,
        }
        let Table { failures, percent, of, rest, longest_rest } = Table::deserialize(from)?;
        let usual = Self::default();
        let rest = rest.unwrap_or(usual.rest);
        let longest_rest = longest_rest.unwrap_or(usual.longest_rest);
        let settings = Self {
            failures: failures.unwrap_or(usual.failures),
            percent: percent.unwrap_or(usual.percent),
            of: of.unwrap_or(usual.of),
            rest,
            longest_rest: if longest_rest < rest { rest } else { longest_rest },
        };
        if settings.percent.get() > 100 || settings.of.get() > 10_000 {
            return Err(Error::custom("expected `percent` from 1 to 100, `of` at most 10000"));
        }
        if rest.0.is_zero() || settings.longest_rest.0 > LONGEST {
            return Err(Error::custom("expected `rest` above 0, and both rests at most 1h"));
        }
        Ok(settings)
    }
}
