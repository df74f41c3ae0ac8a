//! The freshness check: whether Fluent shows the state that the event is about.

use event_model::{ExactValue, Timestamp};
use fluent_api::time;
use settings::{FreshnessSettings, OutdatedPolicy};

/// State of an entity compared with the event about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// It is as the event says, or the event names no status.
    Same,
    /// It was changed after the event came in.
    MovedOn,
    /// It may be from before the event: it is not known to be newer.
    PerhapsOlder,
    /// The answer has no status or no time of its change.
    Unknown,
}

/// Compares an answer with its event, by the paths of the settings.
#[derive(Clone, Debug)]
pub(crate) struct FreshnessCheck(FreshnessSettings);

impl FreshnessCheck {
    pub(crate) fn new(settings: &FreshnessSettings) -> Self {
        Self(settings.clone())
    }

    pub(crate) fn freshness(
        &self,
        entity: &ExactValue,
        status: Option<&str>,
        received_at: Timestamp,
    ) -> Freshness {
        let is = at(entity, &self.0.status).and_then(ExactValue::as_text);
        let updated = at(entity, &self.0.updated)
            .and_then(ExactValue::as_text)
            .and_then(time);
        // Read in any case, so that a misspelt path is noticed with the first event.
        match (is, updated) {
            (None, _) | (_, None) => Freshness::Unknown,
            _ if status.is_none() || is == status => Freshness::Same,
            (_, Some(updated)) if updated > received_at => Freshness::MovedOn,
            _ => Freshness::PerhapsOlder,
        }
    }

    pub(crate) fn skips(&self) -> bool {
        self.0.outdated == OutdatedPolicy::Skip
    }
}

fn at<'v>(value: &'v ExactValue, path: &str) -> Option<&'v ExactValue> {
    path.split('.').try_fold(value, |value, part| match value {
        ExactValue::List(list) => list.get(part.parse::<usize>().ok()?),
        value => value.get(part),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(status: Option<&str>, updated: &str, expected: Freshness) {
        let guard = FreshnessCheck::new(&FreshnessSettings {
            status: "orders.0.status".to_owned(),
            updated: "orders.0.updatedOn".to_owned(),
            outdated: OutdatedPolicy::Skip,
        });
        let entity = json!({"orders": [{"status": "SHIPPED", "updatedOn": updated}]}).to_string();
        let entity = ExactValue::parse(entity.as_bytes()).unwrap();
        let received_at = "2026-01-29T04:42:38Z".parse().unwrap();
        assert_eq!(guard.freshness(&entity, status, received_at), expected);
    }

    #[test]
    fn an_entity_is_compared_with_its_event() {
        check(Some("SHIPPED"), "2020-01-01T00:00:00Z", Freshness::Same);
        check(None, "2030-01-01T00:00:00Z", Freshness::Same);
        check(
            Some("BOOKED"),
            "2026-01-29T04:42:38.194+0000",
            Freshness::MovedOn,
        );
        check(
            Some("BOOKED"),
            "2026-01-29T05:42:37+0100",
            Freshness::PerhapsOlder,
        );
        check(Some("BOOKED"), "yesterday", Freshness::Unknown);
        check(None, "yesterday", Freshness::Unknown);
    }
}
