//! Reading the fields that routes use out of a body, once, without keeping the rest.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Longest `id`, `name`, `accountId` or `retailerId` of an event, in bytes.
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
            /// The names in JSON, in the order of the fields.
            const NAMES: &'static [&'static str] = &[$($json,)*];

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

/// Reason why a genuine body is not an event. The texts name fields, never values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The body is not one JSON object in UTF-8.
    #[error("the body is not one JSON object in UTF-8")]
    NotJson,
    /// A field that we read occurs twice, perhaps with other capitals. Many readers do not tell
    /// the two apart, and nobody can know which of them they take.
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
    /// The codes of all reasons.
    pub const CODES: [&'static str; 4] = [
        "not-json",
        "repeated-field",
        "missing-field",
        "field-too-long",
    ];

    /// A short code of the reason, for logs and metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotJson => "not-json",
            Self::Repeated => "repeated-field",
            Self::Missing(_) => "missing-field",
            Self::TooLong(_) => "field-too-long",
        }
    }
}

/// The fields that could be read of a body, perhaps of its beginning only.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub(crate) fields: Fields,
    /// Every `accountId` in the body, also if the body turned out to be broken.
    pub(crate) accounts: Vec<String>,
    /// True if the body was read to its end.
    pub(crate) is_json: bool,
    pub(crate) malformed: Option<Malformed>,
}

impl Read {
    pub(crate) fn body(body: &[u8]) -> Self {
        let mut read = Self::default();
        let mut json = serde_json::Deserializer::from_slice(body);
        let whole = Object {
            read: &mut read,
            seen: 0,
        }
        .deserialize(&mut json)
        .and_then(|()| json.end());
        // Skipped values are not checked by the parser, but JSON is UTF-8 everywhere: RFC 8259,
        // 8.1.
        if whole.is_err() || std::str::from_utf8(body).is_err() {
            read.malformed = Some(Malformed::NotJson);
        }
        read.is_json = whole.is_ok();
        read.malformed = read.malformed.or_else(|| read.fields.lacking());
        read
    }
}

impl Fields {
    /// The first required field that is missing, empty or too long, if any.
    pub(crate) fn lacking(&self) -> Option<Malformed> {
        [
            ("id", &self.fluent_event_id),
            ("name", &self.name),
            ("accountId", &self.account),
            ("retailerId", &self.retailer),
        ]
        .into_iter()
        .find_map(|(name, value)| match value.as_deref() {
            None | Some("") => Some(Malformed::Missing(name)),
            Some(text) if text.len() > MAX_FIELD => Some(Malformed::TooLong(name)),
            Some(_) => None,
        })
    }
}

/// Visitor of the outermost object. The fields it has read survive an error further on.
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
        // Keys and values are read as raw text: half a surrogate pair and 1e400 are valid JSON,
        // odd but not broken.
        while let Some(key) = map.next_key::<&RawValue>()? {
            let key = text_of(key).unwrap_or_default();
            match self.read.fields.slot(&key) {
                None => {
                    map.next_value::<IgnoredAny>()?;
                    self.note_lookalike(&key);
                }
                Some((index, slot)) => {
                    let value = text_of(map.next_value()?);
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
    /// Records a key that some readers take for a field of ours: another spelling of it in
    /// capitals, or `attributes`, which conditions and templates read.
    fn note_lookalike(&mut self, key: &str) {
        let names = Fields::NAMES.iter().chain(&["attributes"]);
        if let Some(index) = names.into_iter().position(|name| is_alike(name, key)) {
            self.note(index);
        }
    }

    fn note(&mut self, index: usize) {
        if self.seen & (1 << index) != 0 {
            self.read.malformed = Some(Malformed::Repeated);
        }
        self.seen |= 1 << index;
    }
}

/// Whether `key` differs from `name` only in capitals, in any alphabet: some readers take the
/// Kelvin sign for a k, and a long s for an s.
fn is_alike(name: &str, key: &str) -> bool {
    let folded = || {
        key.chars()
            .flat_map(char::to_uppercase)
            .flat_map(char::to_lowercase)
    };
    name.chars().flat_map(char::to_lowercase).eq(folded())
}

fn text_of(json: &RawValue) -> Option<String> {
    let written = json.get();
    // An id with any number of digits, which would be rounded beyond 64 bits.
    if written.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(written.to_owned());
    }
    serde_json::from_str::<Text>(json.get()).ok()?.0
}

/// A string, or a number as its text; `None` for anything else.
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
mod tests;
