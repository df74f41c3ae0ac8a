//! JSON and other texts that are made of values, with the digits of their numbers.

use std::io;

use minijinja::filters::tojson;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{AutoEscape, Error, ErrorKind, Output, State, escape_formatter};
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::ser::{Formatter, PrettyFormatter};
use serde_json::value::RawValue;

use crate::numbers::{Exact, Values};
use crate::sample::Sample;

/// Writes a value into a text, as the text's content type wants it.
pub(crate) fn write(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    let has_own = Values::of(state).is_some_and(|values| values.has_own);
    if !has_own || value.is_safe() {
        return escape_formatter(out, state, value);
    }
    if matches!(state.auto_escape(), AutoEscape::Json) {
        let json = serde_json::to_string(&Json(value));
        let json = json.map_err(|_| Error::new(ErrorKind::BadSerialization, "no JSON"))?;
        return out.write_str(&json).map_err(Error::from);
    }
    match Sample::text(value) {
        Some(text) => out.write_str(text).map_err(Error::from),
        None => escape_formatter(out, state, value),
    }
}

/// The filter `tojson`: like the engine's, with the digits of numbers.
pub(crate) fn to_json(
    state: &State<'_, '_>,
    value: &Value,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let Some(values) = Values::of(state) else {
        return tojson(value, indent, options);
    };
    let made = if !values.has_own {
        tojson(value, indent, options)?
    } else {
        let indent = indent.or(options.get("indent")?);
        options.assert_all_used()?;
        let json = match indent.map(|indent| spaces(&indent)).transpose()?.flatten() {
            Some(spaces) => json_text(value, PrettyFormatter::with_indent(spaces.as_bytes())),
            None => json_text(value, Spaced),
        };
        let json = json.map_err(|_| Error::new(ErrorKind::InvalidOperation, "no JSON"))?;
        Value::from_safe_string(safe_in_html(&json))
    };
    values.charge(made.as_str().map_or(0, str::len))?;
    Ok(made)
}

/// Widest indentation of a JSON text.
const MOST_SPACES: usize = 16;

/// The indentation that is asked for: `true`, or a number of spaces.
fn spaces(indent: &Value) -> Result<Option<String>, Error> {
    match bool::try_from(indent.clone()) {
        Ok(is_wanted) => Ok(is_wanted.then(|| " ".repeat(2))),
        Err(_) => {
            let width = usize::try_from(indent.clone())?;
            Ok(Some(" ".repeat(width.min(MOST_SPACES))))
        }
    }
}

fn json_text(value: &Value, style: impl Formatter) -> serde_json::Result<String> {
    let mut text = Vec::new();
    let mut writer = serde_json::Serializer::with_formatter(&mut text, style);
    Json(value).serialize(&mut writer)?;
    String::from_utf8(text).map_err(serde_json::Error::custom)
}

/// JSON with a space after each comma and colon, as the engine's own filter writes it.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        is_first: bool,
    ) -> io::Result<()> {
        writer.write_all(if is_first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        is_first: bool,
    ) -> io::Result<()> {
        self.begin_array_value(writer, is_first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
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
struct Json<'v>(&'v Value);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(value) = self;
        if let Some(text) = Sample::text(value) {
            return to.serialize_str(text);
        }
        if let Some(text) = Exact::text(value) {
            let text = RawValue::from_string(text.to_owned()).map_err(S::Error::custom)?;
            return text.serialize(to);
        }
        let items = || value.try_iter().map_err(S::Error::custom);
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                let mut list = to.serialize_seq(None)?;
                for item in items()? {
                    list.serialize_element(&Json(&item))?;
                }
                list.end()
            }
            ValueKind::Map => {
                let mut map = to.serialize_map(None)?;
                for key in items()? {
                    let value = value.get_item(&key).map_err(S::Error::custom)?;
                    // A number can't be a key of JSON, and is one as a text.
                    match Exact::text(&key) {
                        Some(text) => map.serialize_entry(text, &Json(&value))?,
                        None => map.serialize_entry(&key, &Json(&value))?,
                    }
                }
                map.end()
            }
            _ => value.serialize(to),
        }
    }
}
