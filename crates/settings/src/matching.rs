//! `match:` of a route.

use std::collections::BTreeSet;

use event_model::Environment;
use queue::{Condition, MatchFields};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::error::SettingsError;
use crate::tree::SettingsTree;

/// `match:` of a route: each one value or a list.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct MatchSettings {
    event: OneOrMore,
    environment: OneOrMore,
    account: OneOrMore,
    retailer: OneOrMore,
    entity_type: OneOrMore,
    entity_subtype: OneOrMore,
    entity_status: OneOrMore,
    /// A CEL expression over `event` that must hold too, such as
    /// `has(event.attributes.store)`.
    when: Option<String>,
}

/// One value, or a list of them; numbers count as their text, and each text counts once.
#[derive(Debug, Default, JsonSchema)]
#[schemars(with = "Scalars")]
struct OneOrMore {
    values: Vec<String>,
    /// The values that were written more than once.
    repeated: BTreeSet<String>,
}

impl OneOrMore {
    /// Collects the values, each once. A value listed twice would make two filters of one
    /// subject, which a NATS server refuses.
    fn of(texts: Vec<String>) -> Self {
        let mut all = Self::default();
        for text in texts {
            if all.values.contains(&text) {
                all.repeated.insert(text);
            } else {
                all.values.push(text);
            }
        }
        all
    }
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes OneOrMore in the schema")]
enum Scalars {
    One(Scalar),
    More(Vec<Scalar>),
}

#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes OneOrMore in the schema")]
enum Scalar {
    Text(String),
    Number(u64),
}

impl<'de> Deserialize<'de> for OneOrMore {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let values = match Value::deserialize(from)? {
            Value::Array(values) => values,
            one => vec![one],
        };
        let text = |value| match value {
            Value::String(text) if !text.is_empty() => Some(text),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let texts: Option<Vec<String>> = values.into_iter().map(text).collect();
        match texts {
            Some(texts) if !texts.is_empty() => Ok(Self::of(texts)),
            _ => Err(serde::de::Error::custom(
                "expected a text such as `OrderStatusChange`, or a list of at least one text",
            )),
        }
    }
}

impl MatchSettings {
    /// The values that are written more than once, each as it would be written once: `event: A`.
    pub(crate) fn repeated(&self) -> Vec<String> {
        let fields = [
            ("event", &self.event),
            ("environment", &self.environment),
            ("account", &self.account),
            ("retailer", &self.retailer),
            ("entity-type", &self.entity_type),
            ("entity-subtype", &self.entity_subtype),
            ("entity-status", &self.entity_status),
        ];
        let of_field = |(name, field): (&str, &OneOrMore)| -> Vec<_> {
            field
                .repeated
                .iter()
                .map(|value| format!("{name}: {value}"))
                .collect()
        };
        fields.into_iter().flat_map(of_field).collect()
    }
}

impl SettingsTree {
    pub(crate) fn terms(
        &self,
        path: &[&str],
        matching: MatchSettings,
    ) -> Result<MatchFields, SettingsError> {
        let known = |name: &String| name.parse::<Environment>().is_ok();
        if !matching.environment.values.iter().all(known) {
            return Err(self.invalid(
                &[path, &["environment"]].concat(),
                "expected sandbox or production",
            ));
        }
        let when = matching.when.map(|text| {
            Condition::parse(&text)
                .and_then(|condition| {
                    condition.check_fields()?;
                    condition.check_answer().map(|()| condition)
                })
                .map_err(|error| self.invalid(&[path, &["when"]].concat(), &error.to_string()))
        });
        Ok(MatchFields {
            when: when.transpose()?,
            event: matching.event.values,
            environment: matching.environment.values,
            account: matching.account.values,
            retailer: matching.retailer.values,
            entity_type: matching.entity_type.values,
            entity_subtype: matching.entity_subtype.values,
            entity_status: matching.entity_status.values,
            origin: Vec::new(),
        })
    }
}
