use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// Longest that one event may be in a handler's hands.
const MAX_LONGEST: Duration = Duration::from_hours(1);

/// The route's `subscription:` table.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SubscriptionSettings {
    /// How long an event may be in a handler's hands without being settled and
    /// without progress, as `30s`.
    #[serde(deserialize_with = "time")]
    #[schemars(with = "String")]
    pub(crate) timeout: Duration,
    /// How long in all; at most 1h.
    #[serde(deserialize_with = "time")]
    #[schemars(with = "String")]
    pub(crate) longest: Duration,
}

impl Default for SubscriptionSettings {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), longest: Duration::from_mins(10) }
    }
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let read = humantime::parse_duration(&text).ok();
    let fits = read.filter(|time| !time.is_zero() && *time <= MAX_LONGEST);
    fits.ok_or_else(|| D::Error::custom("expected a time such as 30s, at most 1h"))
}
