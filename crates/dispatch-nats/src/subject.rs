//! The subject of an event: a text with placeholders.

use dispatch::Event;
use event_model::token;
use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Error};

/// Longest subject, as written: the server bounds a protocol line.
const LONGEST: usize = 256;

/// A part of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Place),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Environment,
    Account,
    Retailer,
    EntityType,
    Event,
}

const PLACES: [(&str, Place); 5] = [
    ("environment", Place::Environment),
    ("account", Place::Account),
    ("retailer", Place::Retailer),
    ("entity-type", Place::EntityType),
    ("event", Place::Event),
];

/// A subject, read and checked.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub(crate) struct Subject(#[schemars(with = "String")] Vec<Part>);

impl Subject {
    /// Returns the subject of `event`. No field can add a token, or extend beyond its own.
    pub(crate) fn of(&self, event: &Event) -> String {
        let fields = event.fields();
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Place(Place::Environment) => event.environment().to_string(),
            Part::Place(Place::Account) => token(fields.account.as_deref()),
            Part::Place(Place::Retailer) => token(fields.retailer.as_deref()),
            Part::Place(Place::EntityType) => token(fields.entity_type.as_deref()),
            Part::Place(Place::Event) => token(fields.name.as_deref()),
        };
        self.0.iter().map(part).collect()
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("a `{` without its `}`")?;
            let known = || PLACES.map(|(name, _)| format!("{{{name}}}")).join(", ");
            let place = PLACES.iter().find(|(known, _)| *known == name);
            let (_, place) =
                place.ok_or_else(|| format!("expected one of {} in braces", known()))?;
            parts.extend([Part::Text(before.to_owned()), Part::Place(*place)]);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let filled: String = parts
            .iter()
            .map(|part| {
                if let Part::Text(text) = part {
                    text
                } else {
                    "x"
                }
            })
            .collect();
        let is_plain = |c: char| c.is_ascii_graphic() && !"*>{}$".contains(c);
        let is_subject = filled
            .split('.')
            .all(|token| !token.is_empty() && token.chars().all(is_plain));
        match is_subject && text.len() <= LONGEST {
            true => Ok(Self(parts)),
            false => Err(
                "expected a subject such as shop.{account}.{event}, without spaces or wildcards"
                    .to_owned(),
            ),
        }
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let event = dispatch::testing::event("fc.connect order>", "HD_1");
        let found = Subject::parse(text).map(|subject| subject.of(&event));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, _) => panic!("{text}: {found:?}"),
        }
    }

    #[test]
    fn no_field_can_leave_its_token() {
        check("shop.orders", Ok("shop.orders"));
        check(
            "shop.{account}.{event}",
            Ok("shop.ACME.fc%2Econnect%20order%3E"),
        );
        check("{environment}-{entity-type}.all", Ok("sandbox-ORDER.all"));
    }

    #[test]
    fn what_is_no_subject_is_refused() {
        for text in [
            "",
            ".",
            "a..b",
            "a b",
            "a.*",
            "a.>",
            "$JS.API.x",
            "a.}",
            "a\r\nb",
        ] {
            check(text, Err("expected a subject"));
        }
        check("a.{evnt}", Err("expected one of {environment}"));
        check("a.{event", Err("without its"));
    }
}
