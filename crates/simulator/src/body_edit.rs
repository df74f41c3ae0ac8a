//! Changes to a body that was written elsewhere: only the fields that were asked for.

use std::fmt;

use anyhow::Context;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The fields to change in a body, each only if it is given.
#[derive(Clone, Debug, Default)]
pub struct BodyEdit {
    /// A new id.
    pub id: Option<String>,
    /// A new name.
    pub name: Option<String>,
    /// A new `entityRef`; also `rootEntityRef`, where the entity is its own root.
    pub reference: Option<String>,
}

impl BodyEdit {
    /// The body with these changes. Without any it is the same, byte for byte; otherwise the
    /// fields keep their order and their text.
    pub fn apply(&self, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        if self.id.is_none() && self.name.is_none() && self.reference.is_none() {
            return Ok(body.to_vec());
        }
        let mut fields: Fields =
            serde_json::from_slice(body).context("expected a JSON object, as Fluent sends it")?;
        let former = fields.get("entityRef").map(str::to_owned);
        let is_root = former.is_some() && fields.get("rootEntityRef") == former.as_deref();
        let root = self.reference.as_ref().filter(|_| is_root);
        let changes = [
            ("id", self.id.as_ref()),
            ("name", self.name.as_ref()),
            ("entityRef", self.reference.as_ref()),
            ("rootEntityRef", root),
        ];
        for (key, value) in changes {
            if let Some(value) = value {
                fields.set(key, serde_json::to_string(value)?);
            }
        }
        Ok(fields.write())
    }
}

/// The fields of one object in their order, each value as it was written.
struct Fields(Vec<(String, String)>);

impl Fields {
    fn get(&self, key: &str) -> Option<&str> {
        let field = self.0.iter().find(|(name, _)| name == key);
        field.map(|(_, value)| value.as_str())
    }

    fn set(&mut self, key: &str, value: String) {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some(field) => field.1 = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    fn write(&self) -> Vec<u8> {
        let fields: Vec<String> = self
            .0
            .iter()
            .map(|(key, value)| format!("{}:{value}", serde_json::json!(key)))
            .collect();
        format!("{{{}}}", fields.join(",")).into_bytes()
    }
}

impl<'de> serde::Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
            fields.push((key, value.get().to_owned()));
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{ "name":"OrderBooked", "id":"1",
        "entityRef":"HD_1", "attributes":{"z": 1.50, "a": "é"}, "rootEntityRef":"HD_1" }
"#;

    fn edited(edit: &BodyEdit, body: &str) -> String {
        String::from_utf8(edit.apply(body.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn without_changes_a_body_is_the_same_byte_for_byte() {
        assert_eq!(edited(&BodyEdit::default(), BODY), BODY);
        assert_eq!(edited(&BodyEdit::default(), "no JSON"), "no JSON");
    }

    #[test]
    fn only_what_is_asked_for_changes_and_the_order_stays() {
        let edit = BodyEdit {
            reference: Some("HD_2".to_owned()),
            ..BodyEdit::default()
        };
        assert_eq!(
            edited(&edit, BODY),
            r#"{"name":"OrderBooked","id":"1","entityRef":"HD_2","attributes":{"z": 1.50, "a": "é"},"rootEntityRef":"HD_2"}"#
        );
        let other_root = BODY.replace(r#"rootEntityRef":"HD_1"#, r#"rootEntityRef":"HD_9"#);
        assert!(edited(&edit, &other_root).contains(r#""rootEntityRef":"HD_9""#));
    }

    #[test]
    fn a_field_that_was_not_there_is_added_and_what_is_no_object_is_refused() {
        let edit = BodyEdit {
            id: Some("7".to_owned()),
            name: Some("A \"b\"".to_owned()),
            reference: None,
        };
        assert_eq!(edited(&edit, "{}"), r#"{"id":"7","name":"A \"b\""}"#);
        let refused = edit.apply(b"[1]").unwrap_err();
        assert!(refused.to_string().contains("a JSON object"), "{refused}");
    }
}
