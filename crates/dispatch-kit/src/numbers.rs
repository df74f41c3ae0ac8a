//! Numbers in templates: calculated with as numbers, and written as they came.
//!
//! The template engine has whole numbers of 128 bits and fractions of 64. A longer whole number,
//! or a fraction that the engine would write differently (`1.10`, 20 digits), becomes the nearest
//! fraction; its text is found again when it is written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dispatch::{ExactNumber, ExactValue};
use minijinja::filters::tojson;
use minijinja::value::{Kwargs, Object, Value, ValueKind};
use minijinja::{AutoEscape, Error, ErrorKind, Output, State, escape_formatter};
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::sample::Sample;

/// Name that no variable of a template can have, for the digits while a template is filled in.
pub(crate) const DIGITS: &str = "the digits of its numbers";

/// Texts of the numbers that the engine would write differently, by the value that it has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Digits {
    written: HashMap<u64, Written>,
    /// Number of sources before this one: the event is the first.
    source: usize,
    /// Whether there are samples among the values, which the engine can't write.
    has_samples: bool,
    /// Bytes that `tojson` made so far.
    made: Arc<AtomicUsize>,
}

/// Most bytes that `tojson` makes for one attempt: they are not part of the engine's own count of
/// work.
const MOST_JSON: usize = 16 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Written {
    Text {
        text: Box<str>,
        source: usize,
    },
    /// Two different numbers that are the same to the engine.
    Either,
}

impl Object for Digits {}

impl Digits {
    /// Makes the digits of numbers beside samples.
    pub(crate) fn of_samples() -> Self {
        Self {
            has_samples: true,
            ..Self::default()
        }
    }

    /// Whether the engine writes every value as it came.
    fn is_empty(&self) -> bool {
        self.written.is_empty() && !self.has_samples
    }

    fn charge(&self, bytes: usize) -> Result<(), Error> {
        let made = self
            .made
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        match made > MOST_JSON {
            true => Err(Error::from(ErrorKind::OutOfFuel)),
            false => Ok(()),
        }
    }

    /// Goes on with the values of another source. They may be written like an equal number of an
    /// earlier source, and never the other way round.
    pub(crate) fn next_source(&mut self) -> &mut Self {
        self.source += 1;
        self
    }

    /// Converts a value for the engine.
    pub(crate) fn value(&mut self, json: ExactValue) -> Value {
        match json {
            ExactValue::Null => Value::from(()),
            ExactValue::Bool(value) => value.into(),
            ExactValue::Text(text) => text.into(),
            ExactValue::Number(number) => self.number(&number),
            ExactValue::List(list) => Value::from(
                list.into_iter()
                    .map(|value| self.value(value))
                    .collect::<Vec<_>>(),
            ),
            ExactValue::Table(fields) => self.table(fields),
        }
    }

    /// Converts a table for the engine.
    pub(crate) fn table(
        &mut self,
        fields: impl IntoIterator<Item = (String, ExactValue)>,
    ) -> Value {
        let fields = fields
            .into_iter()
            .map(|(name, value)| (name, self.value(value)));
        Value::from(fields.collect::<BTreeMap<_, _>>())
    }

    fn number(&mut self, number: &ExactNumber) -> Value {
        if let Some(whole) = number.as_whole::<i64>() {
            return whole.into();
        }
        if let Some(whole) = number.as_whole::<i128>() {
            return whole.into();
        }
        let fraction = number.as_f64();
        let now = self.source;
        let written = self.written.entry(fraction.to_bits());
        let written = written.or_insert_with(|| Written::Text {
            text: number.as_str().into(),
            source: now,
        });
        if let Written::Text { text, source } = written {
            match is_same(text, number.as_str()) {
                // The shorter text says all that the longer does.
                true if *source == now && number.as_str().len() < text.len() => {
                    *text = number.as_str().into()
                }
                true => {}
                false => *written = Written::Either,
            }
        }
        fraction.into()
    }

    /// Returns how a value was written, if it is one of these numbers.
    fn written(&self, value: &Value) -> Option<&Written> {
        if value.kind() != ValueKind::Number || value.is_integer() {
            return None;
        }
        self.written
            .get(&f64::try_from(value.clone()).ok()?.to_bits())
    }
}

/// Whether two texts are the same number, by their digits and the position of the point.
fn is_same(one: &str, other: &str) -> bool {
    one == other || decimal(one).is_some_and(|one| Some(one) == decimal(other))
}

/// Returns the sign, the digits without zeros around them, and the power of ten of the last
/// digit.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (sign, mantissa) = mantissa
        .strip_prefix('-')
        .map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let trimmed = digits.trim_end_matches('0');
    let moved =
        i64::try_from(digits.len() - trimmed.len()).ok()? - i64::try_from(fraction.len()).ok()?;
    let digits = trimmed.trim_start_matches('0').to_owned();
    let power = if digits.is_empty() {
        0
    } else {
        exponent.parse::<i64>().ok()?.checked_add(moved)?
    };
    Some((sign, digits, power))
}

/// Writes a value into a text, as the text's content type wants it.
pub(crate) fn write(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    let digits = state
        .lookup(DIGITS)
        .and_then(|digits| digits.downcast_object::<Digits>());
    let Some(digits) = digits.filter(|digits| !digits.is_empty() && !value.is_safe()) else {
        return escape_formatter(out, state, value);
    };
    if matches!(state.auto_escape(), AutoEscape::Json) {
        let json = serde_json::to_string(&Exact {
            value,
            digits: &digits,
        });
        let json = json.map_err(|_| Error::new(ErrorKind::BadSerialization, "no JSON"))?;
        return out.write_str(&json).map_err(Error::from);
    }
    if let Some(text) = Sample::text(value) {
        return out.write_str(text).map_err(Error::from);
    }
    match digits.written(value) {
        Some(Written::Text { text, .. }) => out.write_str(text).map_err(Error::from),
        Some(Written::Either) => Err(too_near()),
        None if matches!(value.kind(), ValueKind::Seq | ValueKind::Map) => {
            let mut text = String::new();
            write_nested(&mut text, value, &digits)?;
            escape_formatter(out, state, &Value::from(text))
        }
        None => escape_formatter(out, state, value),
    }
}

fn too_near() -> Error {
    Error::new(ErrorKind::InvalidOperation, "numbers that are too near")
}

/// Writes a value within a list or table, which the engine writes as Python does.
fn write_nested(out: &mut String, value: &Value, digits: &Digits) -> Result<(), Error> {
    match (digits.written(value), value.kind()) {
        (Some(Written::Text { text, .. }), _) => out.push_str(text),
        (Some(Written::Either), _) => return Err(too_near()),
        (None, ValueKind::Seq) => {
            out.push('[');
            for (index, item) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_nested(out, &item, digits)?;
            }
            out.push(']');
        }
        (None, ValueKind::Map) => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                out.push_str(&format!("{key:?}: "));
                write_nested(out, &value.get_item(&key)?, digits)?;
            }
            out.push('}');
        }
        (None, _) => out.push_str(&format!("{value:?}")),
    }
    Ok(())
}

/// The filter `tojson`: like the engine's, with the digits of numbers.
pub(crate) fn to_json(
    state: &State<'_, '_>,
    value: &Value,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let digits = state
        .lookup(DIGITS)
        .and_then(|digits| digits.downcast_object::<Digits>());
    let Some(digits) = digits else {
        return tojson(value, indent, options);
    };
    let made = if digits.is_empty() {
        tojson(value, indent, options)?
    } else {
        let indent = indent.or(options.get("indent")?);
        options.assert_all_used()?;
        let value = Exact {
            value,
            digits: &digits,
        };
        let json = match indent.is_some_and(|indent| indent.is_true()) {
            true => serde_json::to_string_pretty(&value),
            false => serde_json::to_string(&value),
        };
        let json = json.map_err(|_| Error::new(ErrorKind::InvalidOperation, "no JSON"))?;
        Value::from_safe_string(safe_in_html(&json))
    };
    digits.charge(made.as_str().map_or(0, str::len))?;
    Ok(made)
}

/// Escapes what could end an element or an attribute, as the engine's own filter does.
fn safe_in_html(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => safe.push_str("\\u003c"),
            '>' => safe.push_str("\\u003e"),
            '&' => safe.push_str("\\u0026"),
            '\'' => safe.push_str("\\u0027"),
            c => safe.push(c),
        }
    }
    safe
}

/// A value to be written as JSON, with the digits of its numbers.
struct Exact<'v> {
    value: &'v Value,
    digits: &'v Digits,
}

impl Exact<'_> {
    fn of<'v>(&'v self, value: &'v Value) -> Exact<'v> {
        Exact {
            value,
            digits: self.digits,
        }
    }
}

impl Serialize for Exact<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if let Some(text) = Sample::text(self.value) {
            return to.serialize_str(text);
        }
        let items = || self.value.try_iter().map_err(S::Error::custom);
        match self.value.kind() {
            ValueKind::Number => match self.digits.written(self.value) {
                Some(Written::Text { text, .. }) => RawValue::from_string(text.to_string())
                    .map_err(S::Error::custom)?
                    .serialize(to),
                Some(Written::Either) => Err(S::Error::custom("numbers that are too near")),
                None => self.value.serialize(to),
            },
            ValueKind::Seq | ValueKind::Iterable => {
                let mut list = to.serialize_seq(None)?;
                for item in items()? {
                    list.serialize_element(&self.of(&item))?;
                }
                list.end()
            }
            ValueKind::Map => {
                let mut map = to.serialize_map(None)?;
                for key in items()? {
                    let value = self.value.get_item(&key).map_err(S::Error::custom)?;
                    map.serialize_entry(&key, &self.of(&value))?;
                }
                map.end()
            }
            _ => self.value.serialize(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_texts_are_one_number_if_their_digits_say_the_same() {
        for same in [
            ["1.10", "1.1"],
            ["1e3", "1000"],
            ["1000.0", "1E+3"],
            ["0.0010", "1e-3"],
            ["0", "0e9"],
            ["-0", "-0.0"],
        ] {
            assert!(is_same(same[0], same[1]), "{same:?}");
        }
        for other in [
            ["1.1", "1.10000000000000000001"],
            ["1", "-1"],
            ["0", "-0"],
            ["1e3", "1e4"],
            ["10", "1"],
        ] {
            assert!(!is_same(other[0], other[1]), "{other:?}");
        }
    }
}
