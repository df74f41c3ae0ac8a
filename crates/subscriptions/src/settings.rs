//! The `subscription:` table of a route.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// Longest time that the settings may allow for one event at a handler.
const MAX_LONGEST: Duration = Duration::from_hours(1);

/// Usual time for one event at a handler without a sign of progress.
const TIMEOUT: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_mins(10);

/// The route's `subscription:` table.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SubscriptionSettings {
    /// How long a handler may have an event without settling it or reporting progress; default
    /// 30s.
    #[serde(deserialize_with = "time")]
    #[schemars(
        with = "Option<String>",
        extend("title" = "a duration", "examples" = ["10s"])
    )]
    timeout: Option<Duration>,
    /// How long a handler may have an event in all; at most 1h, default 10m.
    #[serde(deserialize_with = "time")]
    #[schemars(
        with = "Option<String>",
        extend("title" = "a duration", "examples" = ["10s"])
    )]
    max_duration: Option<Duration>,
}

impl SubscriptionSettings {
    pub(crate) fn timeout(self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    pub(crate) fn longest(self) -> Duration {
        self.max_duration.unwrap_or(LONGEST)
    }
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(from)?;
    let read = humantime::parse_duration(&text).ok();
    let fits = read.filter(|time| !time.is_zero() && *time <= MAX_LONGEST);
    fits.map(Some)
        .ok_or_else(|| D::Error::custom("expected a duration above 0, such as 30s, and at most 1h"))
}
