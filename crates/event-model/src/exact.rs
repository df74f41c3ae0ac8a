//! JSON values whose numbers are the text that was written.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::ViewError;

mod decimal;
mod selected;

pub use self::decimal::{Decimal, Rounding};
pub(crate) use self::selected::{ATTRIBUTES, fields_of};

/// A JSON value as it was written. Ids of 22 digits and prices of `1.10` are numbers to
/// whoever sends them, and no number of a program holds them as they are.
///
/// ```
/// use fluent_event_model::ExactValue;
///
/// let value = ExactValue::parse(br#"{"id": 9405511899560000000001, "price": 1.10}"#)?;
/// let Some(ExactValue::Number(price)) = value.get("price") else { panic!() };
/// assert_eq!((price.as_str(), price.as_f64()), ("1.10", 1.1));
/// # Ok::<(), fluent_event_model::ViewError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ExactValue {
    /// `null`.
    #[default]
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any number.
    Number(ExactNumber),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<ExactValue>),
    /// An object.
    Table(BTreeMap<String, ExactValue>),
}

/// A number, stored as its text.
#[derive(Clone, PartialEq, Eq)]
pub struct ExactNumber(Box<str>);

impl ExactValue {
    /// Reads a JSON text. Fails as [`Event::view`](crate::Event::view) does for deep nesting, values
    /// out of range, and repeated keys.
    pub fn parse(json: &[u8]) -> Result<Self, ViewError> {
        read(json, |reading, json| Seed(reading).deserialize(json))
    }

    /// The text, if this is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A field of this table; `None` if it has no such field, or is no table.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Table(fields) => fields.get(name),
            _ => None,
        }
    }
}

impl From<&str> for ExactValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl ExactNumber {
    /// The text of the number, as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the number is written without fraction and exponent. `-0` does not count, since
    /// whole numbers in programs have no such value.
    pub fn is_whole(&self) -> bool {
        &*self.0 != "-0"
            && self
                .0
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'-')
    }

    /// The number as an integer, if it is whole and fits.
    pub fn as_whole<N: std::str::FromStr>(&self) -> Option<N> {
        self.is_whole().then(|| self.0.parse().ok()).flatten()
    }

    /// Whether `other` is a JSON number of exactly the same value, as `1.10` and `1.1` are.
    pub fn is_same_value(&self, other: &str) -> bool {
        match (self.decimal(), Decimal::parse(other)) {
            (Some(one), Some(other)) => one == other,
            _ => false,
        }
    }

    /// The value of the number; `None` if its exponent does not fit in 64 bits.
    pub fn decimal(&self) -> Option<Decimal> {
        Decimal::parse(&self.0)
    }

    /// The nearest `f64`.
    pub fn as_f64(&self) -> f64 {
        self.0.parse().unwrap_or(f64::NAN)
    }
}

impl fmt::Debug for ExactNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A JSON text that was parsed once, so that it is known to be valid. Every number stays as it
/// was written.
///
/// ```
/// use fluent_event_model::ExactJson;
///
/// let json = ExactJson::parse(r#"{"id": 9405511899560000000001}"#)?;
/// assert_eq!(json.as_str(), r#"{"id": 9405511899560000000001}"#);
/// assert!(json.value().get("id").is_some());
/// # Ok::<(), fluent_event_model::ViewError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ExactJson(Arc<str>);

impl ExactJson {
    /// Parses a text. Fails for the same texts as [`ExactValue::parse`].
    pub fn parse(text: &str) -> Result<Self, ViewError> {
        ExactValue::parse(text.as_bytes()).map(|_| Self(text.into()))
    }

    /// The text, as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The value of the text.
    pub fn value(&self) -> ExactValue {
        ExactValue::parse(self.0.as_bytes()).unwrap_or_default()
    }
}

/// Shows the size, never the content.
impl fmt::Debug for ExactJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExactJson({} bytes)", self.0.len())
    }
}

type JsonReader<'j> = serde_json::Deserializer<serde_json::de::SliceRead<'j>>;

/// Reads a whole JSON text. The library refuses numbers beyond the largest `f64`, which are JSON
/// all the same: where there are such, it is shown others, and their texts are taken.
fn read<T>(
    json: &[u8],
    as_value: impl for<'j> Fn(&Reading<'j>, &mut JsonReader<'j>) -> serde_json::Result<T>,
) -> Result<T, ViewError> {
    read_as(json, json, &as_value).or_else(|error| match without_huge_numbers(json) {
        Some(shown) if error == ViewError::OutOfRange => read_as(json, &shown, &as_value),
        _ => Err(error),
    })
}

/// Reads `shown`, with the numbers of `json`.
fn read_as<'j, T>(
    json: &'j [u8],
    shown: &'j [u8],
    as_value: &impl Fn(&Reading<'j>, &mut JsonReader<'j>) -> serde_json::Result<T>,
) -> Result<T, ViewError> {
    let numbers = RefCell::new(Numbers { json, at: 0 });
    let reading = Reading {
        numbers,
        passed_over: Cell::new(0),
        is_repeated: Cell::new(false),
    };
    let mut shown = serde_json::Deserializer::from_slice(shown);
    let read = as_value(&reading, &mut shown);
    read.and_then(|value| shown.end().map(|()| value))
        .map_err(|_| match reading.is_repeated.get() {
            true => ViewError::Repeated,
            false => ViewError::OutOfRange,
        })
}

/// The text with 0 for each number that no `f64` is as large as; `None` if there is none.
fn without_huge_numbers(json: &[u8]) -> Option<Vec<u8>> {
    let mut shown = None;
    let mut numbers = Numbers { json, at: 0 };
    while let Some(number) = numbers.next() {
        let is_huge = number.parse().is_ok_and(f64::is_infinite);
        if is_huge && Decimal::parse_clamped(number).is_some() {
            let shown = shown.get_or_insert_with(|| json.to_vec());
            let start = numbers.at - number.len();
            shown[start..numbers.at].fill(b' ');
            shown[start] = b'0';
        }
    }
    shown
}

/// What is noted while a value is read.
struct Reading<'j> {
    numbers: RefCell<Numbers<'j>>,
    /// Numbers that nobody wanted since the last one that somebody did.
    passed_over: Cell<usize>,
    is_repeated: Cell<bool>,
}

impl Reading<'_> {
    fn repeated<E: Error>(&self) -> E {
        self.is_repeated.set(true);
        E::custom("a key occurs twice")
    }

    /// The number that is read now; `read` is what the library made of it.
    fn number(&self, read: impl fmt::Display) -> ExactValue {
        let text = self
            .numbers
            .borrow_mut()
            .nth(self.passed_over.take())
            .map(Into::into);
        ExactValue::Number(ExactNumber(text.unwrap_or_else(|| read.to_string().into())))
    }
}

/// The texts of the numbers in a JSON text, in the order in which they are read.
struct Numbers<'j> {
    json: &'j [u8],
    at: usize,
}

impl<'j> Iterator for Numbers<'j> {
    type Item = &'j str;

    fn next(&mut self) -> Option<&'j str> {
        loop {
            match self.json.get(self.at)? {
                b'"' => self.skip_text(),
                b'-' | b'0'..=b'9' => return self.number(),
                _ => self.at += 1,
            }
        }
    }
}

impl<'j> Numbers<'j> {
    fn skip_text(&mut self) {
        self.at += 1;
        while let Some(byte) = self.json.get(self.at) {
            self.at += if *byte == b'\\' { 2 } else { 1 };
            if *byte == b'"' {
                return;
            }
        }
    }

    fn number(&mut self) -> Option<&'j str> {
        let rest = &self.json[self.at..];
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let end = rest
            .iter()
            .position(|byte| !is_part(byte))
            .unwrap_or(rest.len());
        self.at += end;
        str::from_utf8(&rest[..end]).ok()
    }
}

/// Reads a value. Fails at a key that its object had before, and records that.
#[derive(Clone, Copy)]
struct Seed<'r, 'j>(&'r Reading<'j>);

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = ExactValue;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<ExactValue, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = ExactValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<ExactValue, E> {
        Ok(ExactValue::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<ExactValue, E> {
        Ok(self.0.number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<ExactValue, E> {
        Ok(self.0.number(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<ExactValue, E> {
        Ok(self.0.number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<ExactValue, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<ExactValue, E> {
        Ok(ExactValue::Text(text))
    }

    fn visit_unit<E>(self) -> Result<ExactValue, E> {
        Ok(ExactValue::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ExactValue, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(ExactValue::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<ExactValue, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some(key) = object.next_key::<String>()? {
            if fields.contains_key(&key) {
                return Err(self.0.repeated());
            }
            fields.insert(key, object.next_value_seed(self)?);
        }
        Ok(ExactValue::Table(fields))
    }
}

#[cfg(test)]
mod tests;
