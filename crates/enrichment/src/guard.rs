//! The freshness check: whether Fluent shows the state that the event is about.

use event_model::{ExactValue, Timestamp};
use fluent_api::time;
use settings::{GuardSettings, MovedOn};

/// State of an entity compared with the event about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
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
pub(crate) struct Guard(GuardSettings);

impl Guard {
    pub(crate) fn new(settings: &GuardSettings) -> Self {
        Self(settings.clone())
    }

    pub(crate) fn standing(
        &self,
        entity: &ExactValue,
        status: Option<&str>,
        received_at: Timestamp,
    ) -> Standing {
        let is = at(entity, &self.0.status).and_then(ExactValue::as_text);
        let updated = at(entity, &self.0.updated).and_then(ExactValue::as_text).and_then(time);
        // Read in any case, so that a misspelt path is noticed with the first event.
        match (is, updated) {
            (None, _) | (_, None) => Standing::Unknown,
            _ if status.is_none() || is == status => Standing::Same,
            (_, Some(updated)) if updated > received_at => Standing::MovedOn,
            _ => Standing::PerhapsOlder,
        }
    }

    pub(crate) fn skips(&self) -> bool {
        self.0.moved_on == MovedOn::Skip
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
    fn check(status: Option<&str>, updated: &str, expected: Standing) {
        let guard = Guard::new(&GuardSettings {
            status: "orders.0.status".to_owned(),
            updated: "orders.0.updatedOn".to_owned(),
            moved_on: MovedOn::Skip,
        });
        let entity = json!({"orders": [{"status": "SHIPPED", "updatedOn": updated}]}).to_string();
        let entity = ExactValue::parse(entity.as_bytes()).unwrap();
        let received_at = "2026-01-29T04:42:38Z".parse().unwrap();
        assert_eq!(guard.standing(&entity, status, received_at), expected);
    }

    #[test]
    fn an_entity_is_compared_with_its_event() {
        check(Some("SHIPPED"), "2020-01-01T00:00:00Z", Standing::Same);
        check(None, "2030-01-01T00:00:00Z", Standing::Same);
        check(Some("BOOKED"), "2026-01-29T04:42:38.194+0000", Standing::MovedOn);
        check(Some("BOOKED"), "2026-01-29T05:42:37+0100", Standing::PerhapsOlder);
        check(Some("BOOKED"), "yesterday", Standing::Unknown);
        check(None, "yesterday", Standing::Unknown);
    }
}
