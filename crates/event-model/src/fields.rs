//! Reading the fields that routes use out of a body, once, without keeping the rest.

use std::fmt;

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
    seen: u32,
}

/// Fields of Fluent's that we don't read, and that conditions, templates and handlers may.
const UNREAD: [&str; 8] = [
    "attributes",
    "errorLogs",
    "flexType",
    "flexVersion",
    "meta",
    "scheduledOn",
    "source",
    "trailLogs",
];

// One bit for each.
const _: () = assert!(Fields::NAMES.len() + UNREAD.len() <= u32::BITS as usize);

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
            let key = id_text(key).unwrap_or_default();
            match self.read.fields.slot(&key) {
                None => {
                    map.next_value::<IgnoredAny>()?;
                    self.note_lookalike(&key);
                }
                Some((index, slot)) => {
                    let value = id_text(map.next_value()?);
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
    /// Records a key that some readers take for a field of Fluent's: one that we don't read, or
    /// another spelling of any in capitals.
    fn note_lookalike(&mut self, key: &str) {
        let names = Fields::NAMES.iter().chain(&UNREAD);
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
    // Nearly every key, and each of an event is compared with all names.
    if name.is_ascii() && key.is_ascii() {
        return name.eq_ignore_ascii_case(key);
    }
    let folded = || {
        key.chars()
            .flat_map(char::to_uppercase)
            .flat_map(char::to_lowercase)
    };
    name.chars().flat_map(char::to_lowercase).eq(folded())
}

/// Returns the text of an id: a string, or a number as it is written, since a reader of 64 bits
/// would round it, or drop the zeros at its end. `None` for anything else, also for a number with
/// an exponent that no reader holds.
///
/// ```
/// # use fluent_event_model::id_text;
/// # let raw = |json: &'static str| serde_json::from_str(json);
/// assert_eq!(id_text(raw("\"34\"")?).as_deref(), Some("34"));
/// assert_eq!(id_text(raw("9405511899560000000001")?).as_deref(), Some("9405511899560000000001"));
/// assert_eq!(id_text(raw("[34]")?), None);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub fn id_text(json: &RawValue) -> Option<String> {
    let written = json.get();
    match written.as_bytes() {
        [b'-' | b'0'..=b'9', ..] => is_id(written).then(|| written.to_owned()),
        [b'"', ..] => serde_json::from_str(written).ok(),
        _ => None,
    }
}

fn is_id(number: &str) -> bool {
    let has_digits_alone = number.bytes().all(|byte| byte.is_ascii_digit());
    has_digits_alone || number.parse().is_ok_and(f64::is_finite)
}

#[cfg(test)]
mod tests;
