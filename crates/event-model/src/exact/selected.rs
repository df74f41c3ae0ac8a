//! Some fields of an object. Nothing is made of the others, and what makes an object
//! unreadable is found in them all the same.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{ExactValue, Reading, Seed, read};
use crate::ViewError;

/// Its names are an object's keys or stand in a list, and must be different in both.
pub(crate) const ATTRIBUTES: &str = "attributes";

/// The fields of the object `json` that are wanted.
pub(crate) fn fields_of(
    json: &[u8],
    is_wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, ExactValue>, ViewError> {
    match read(json, |reading, json| {
        json.deserialize_map(FieldSelection {
            reading,
            is_wanted: &is_wanted,
        })
    })? {
        (_, true) => Err(ViewError::Repeated),
        (fields, false) => Ok(fields),
    }
}

/// Reads the fields, and whether two attributes of a list that is not wanted have one name.
struct FieldSelection<'r, 'j, W> {
    reading: &'r Reading<'j>,
    is_wanted: W,
}

impl<'de, W: Fn(&str) -> bool> Visitor<'de> for FieldSelection<'_, '_, W> {
    type Value = (BTreeMap<String, ExactValue>, bool);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let Self { reading, is_wanted } = self;
        let mut fields = BTreeMap::new();
        let mut keys = BTreeSet::new();
        let mut is_name_repeated = false;
        while let Some(key) = object.next_key_seed(Key)? {
            if !keys.insert(key.clone()) {
                return Err(reading.repeated());
            }
            if is_wanted(&key) {
                fields.insert(key.into_owned(), object.next_value_seed(Seed(reading))?);
                continue;
            }
            let depth = if key == ATTRIBUTES {
                Depth::Attributes
            } else {
                Depth::Other
            };
            let passed = object.next_value_seed(Unwanted { reading, depth })?;
            is_name_repeated |= matches!(passed, Passed::WithNameTwice);
        }
        Ok((fields, is_name_repeated))
    }
}

/// A key, which is copied only if it is not written as it is.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

/// Where a value stands that nobody wants.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// It is the attributes.
    Attributes,
    /// It is one of them, where they are a list.
    Attribute,
    Other,
}

/// Reads past a value; ends at a key or an attribute's name that is there twice.
#[derive(Clone, Copy)]
struct Unwanted<'r, 'j> {
    reading: &'r Reading<'j>,
    depth: Depth,
}

/// What is known of a value that was read past.
enum Passed<'de> {
    Text(Cow<'de, str>),
    /// An attribute of a list, by its name.
    Named(Cow<'de, str>),
    /// Attributes, of which two have one name.
    WithNameTwice,
    Other,
}

impl<'de> DeserializeSeed<'de> for Unwanted<'_, '_> {
    type Value = Passed<'de>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl Unwanted<'_, '_> {
    fn at(self, depth: Depth) -> Self {
        Self { depth, ..self }
    }

    fn number<'de>(self) -> Passed<'de> {
        let passed_over = &self.reading.passed_over;
        passed_over.set(passed_over.get() + 1);
        Passed::Other
    }
}

impl<'de> Visitor<'de> for Unwanted<'_, '_> {
    type Value = Passed<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Passed::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(self.number())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(self.number())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(self.number())
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Passed::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Passed::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Passed::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let is_of_attributes = self.depth == Depth::Attributes;
        let element = self.at(if is_of_attributes {
            Depth::Attribute
        } else {
            Depth::Other
        });
        let mut names = BTreeSet::new();
        let mut is_name_repeated = false;
        while let Some(passed) = list.next_element_seed(element)? {
            if let Passed::Named(name) = passed {
                is_name_repeated |= !names.insert(name);
            }
        }
        Ok(if is_name_repeated {
            Passed::WithNameTwice
        } else {
            Passed::Other
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut keys = BTreeSet::new();
        let mut passed = Passed::Other;
        while let Some(key) = object.next_key_seed(Key)? {
            if !keys.insert(key.clone()) {
                return Err(self.reading.repeated());
            }
            let value = object.next_value_seed(self.at(Depth::Other))?;
            if let (Depth::Attribute, "name", Passed::Text(name)) = (self.depth, &*key, value) {
                passed = Passed::Named(name);
            }
        }
        Ok(passed)
    }
}
