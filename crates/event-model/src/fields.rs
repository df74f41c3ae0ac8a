//! Reading the fields we route on out of a body, once, without keeping the rest.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// Longest `id`, `name`, `accountId` or `retailerId`, in bytes.
pub const MAX_FIELD: usize = 256;

macro_rules! fields {
    ($($(#[$doc:meta])* $field:ident = $json:literal,)*) => {
        /// The fields of an event that routing and people use; the rest stays
        /// in the body. Absent, `null` and oddly typed are all `None`: thin
        /// and odd events are still events.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        #[expect(missing_docs, reason = "they are the names of Fluent's own fields")]
        pub struct Fields {
            $($(#[$doc])* pub $field: Option<String>,)*
        }

        impl Fields {
            fn slot(&mut self, key: &str) -> Option<(usize, &mut Option<String>)> {
                let mut index = 0;
                $(
                    if key == $json {
                        return Some((index, &mut self.$field));
                    }
                    index += 1;
                )*
                let _ = index;
                None
            }
        }
    };
}

fields! {
    fluent_event_id = "id",
    name = "name",
    account = "accountId",
    retailer = "retailerId",
    entity_id = "entityId",
    entity_ref = "entityRef",
    entity_type = "entityType",
    entity_subtype = "entitySubtype",
    entity_status = "entityStatus",
    root_entity_id = "rootEntityId",
    root_entity_ref = "rootEntityRef",
    root_entity_type = "rootEntityType",
    kind = "type",
}

/// Why a genuine body is not an event. The texts name fields, never values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Not a JSON object, or something after it.
    #[error("the body is not one JSON object")]
    NotJson,
    /// A field that we route on is there twice.
    #[error("a field that routes depend on occurs twice")]
    Repeated,
    /// A required field is absent or empty.
    #[error("`{0}` is missing or empty")]
    Missing(&'static str),
    /// A required field is longer than [`MAX_FIELD`].
    #[error("`{0}` is longer than {MAX_FIELD} bytes")]
    TooLong(&'static str),
}

impl Malformed {
    /// Every code.
    pub const CODES: [&'static str; 4] = ["not-json", "repeated-field", "missing-field", "field-too-long"];

    /// A short code for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotJson => "not-json",
            Self::Repeated => "repeated-field",
            Self::Missing(_) => "missing-field",
            Self::TooLong(_) => "field-too-long",
        }
    }
}

/// What could be read of a body, which may be less than all of it.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) fields: Fields,
    /// Every `accountId` met, also in a body that turned out to be broken.
    pub(crate) accounts: Vec<String>,
    pub(crate) malformed: Option<Malformed>,
}

impl Read {
    pub(crate) fn body(body: &[u8]) -> Self {
        let mut read = Self::default();
        let mut json = serde_json::Deserializer::from_slice(body);
        let whole = Object { read: &mut read, seen: 0 }.deserialize(&mut json).and_then(|()| json.end());
        if whole.is_err() {
            read.malformed = Some(Malformed::NotJson);
        }
        read.malformed = read.malformed.or_else(|| read.lacking());
        read
    }

    fn lacking(&self) -> Option<Malformed> {
        let fields = &self.fields;
        [
            ("id", &fields.fluent_event_id),
            ("name", &fields.name),
            ("accountId", &fields.account),
            ("retailerId", &fields.retailer),
        ]
        .into_iter()
        .find_map(|(name, value)| match value.as_deref() {
            None | Some("") => Some(Malformed::Missing(name)),
            Some(text) if text.len() > MAX_FIELD => Some(Malformed::TooLong(name)),
            Some(_) => None,
        })
    }
}

/// Visits the outermost object; what it read survives an error further on.
struct Object<'r> {
    read: &'r mut Read,
    seen: u16,
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Text>()? {
            let key = key.0.unwrap_or_default();
            match self.read.fields.slot(&key) {
                None => map.next_value::<IgnoredAny>().map(drop)?,
                Some((index, slot)) => {
                    let value = map.next_value::<Text>()?.0;
                    if key == "accountId" {
                        self.read.accounts.extend(value.clone());
                    }
                    *slot = value;
                    self.note(index);
                }
            }
        }
        Ok(())
    }
}

impl Object<'_> {
    fn note(&mut self, index: usize) {
        if self.seen & (1 << index) != 0 {
            self.read.malformed = Some(Malformed::Repeated);
        }
        self.seen |= 1 << index;
    }
}

/// A string, or a number as its text; anything else is `None`.
struct Text(Option<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(TextVisitor).map(Self)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Some(number.to_string()))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, malformed: Option<Malformed>) -> Read {
        let read = Read::body(body.as_bytes());
        assert_eq!(read.malformed, malformed, "{body}");
        read
    }

    #[test]
    fn numbers_are_taken_as_their_text() {
        let read = check(
            r#"{"id":"a","name":"n","accountId":"A","retailerId":34,"entityId":9007199254740993}"#,
            None,
        );
        assert_eq!(read.fields.retailer.as_deref(), Some("34"));
        assert_eq!(read.fields.entity_id.as_deref(), Some("9007199254740993"));
    }

    #[test]
    fn odd_optional_fields_are_absent() {
        let read = check(
            r#"{"id":"a","name":"n","accountId":"A","retailerId":"1","entityRef":{"x":[1]},"entityStatus":null,"type":true,"entityId":[]}"#,
            None,
        );
        let Fields { entity_ref, entity_status, kind, entity_id, .. } = read.fields;
        assert_eq!((entity_ref, entity_status, kind, entity_id), (None, None, None, None));
    }

    #[test]
    fn what_is_required_is_named() {
        check(r#"{"name":"n","accountId":"A","retailerId":"1"}"#, Some(Malformed::Missing("id")));
        check(r#"{"id":"a","name":"","accountId":"A","retailerId":"1"}"#, Some(Malformed::Missing("name")));
        check(
            r#"{"id":"a","name":"n","accountId":null,"retailerId":"1"}"#,
            Some(Malformed::Missing("accountId")),
        );
        check(r#"{"id":"a","name":"n","accountId":"A"}"#, Some(Malformed::Missing("retailerId")));
        let long = format!(r#"{{"id":"a","name":"{}","accountId":"A","retailerId":"1"}}"#, "n".repeat(257));
        check(&long, Some(Malformed::TooLong("name")));
    }

    #[test]
    fn a_routed_key_twice_is_malformed_and_another_key_is_not() {
        check(
            r#"{"id":"a","id":"b","name":"n","accountId":"A","retailerId":"1"}"#,
            Some(Malformed::Repeated),
        );
        check(
            r#"{"id":"a","\u0069d":"b","name":"n","accountId":"A","retailerId":"1"}"#,
            Some(Malformed::Repeated),
        );
        check(r#"{"id":"a","name":"n","accountId":"A","retailerId":"1","x":1,"x":2}"#, None);
    }

    #[test]
    fn a_broken_body_still_says_whose_it_claims_to_be() {
        let read = check(r#"{"accountId":"STRANGER","id":"#, Some(Malformed::NotJson));
        assert_eq!(read.accounts, ["STRANGER"]);
        for broken in ["", "[]", "null", "{} x", "\u{feff}{}", r#"{"id":NaN}"#, &"[".repeat(100_000)] {
            check(broken, Some(Malformed::NotJson));
        }
        assert_eq!(Read::body(b"{\"id\":\"\xff\"}").malformed, Some(Malformed::NotJson));
    }

    #[test]
    fn a_deep_value_does_not_overflow_the_stack() {
        let deep = format!(r#"{{"id":"a","attributes":{}"#, "[".repeat(100_000));
        check(&deep, Some(Malformed::NotJson));
        // Closed, it is odd and no harm: what is not routed on is passed over without recursion.
        let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
        let closed =
            format!(r#"{{"id":"a","name":"n","accountId":"A","retailerId":"1","attributes":{open}{close}}}"#);
        check(&closed, None);
    }
}
