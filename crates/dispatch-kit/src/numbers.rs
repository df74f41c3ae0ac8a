//! Numbers in templates: written as they came, compared by their digits, and calculated with as
//! the template engine's numbers.
//!
//! The engine has whole numbers of 128 bits and fractions of 64, and would write `1.10` as `1.1`.
//! So a whole number that fits is the engine's, and every other one is an [`Exact`], which is
//! written as its text wherever the engine makes a text of it. The engine can't calculate with
//! that, and compares it with nothing else: [`counted`] and [`compared`] make what it can.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering as Access};
use std::sync::{Arc, OnceLock};

use dispatch::{Decimal, ExactNumber, ExactValue};
use minijinja::filters::tojson;
use minijinja::value::{DynObject, Enumerator, Kwargs, Object, ObjectRepr, Value, ValueKind};
use minijinja::{AutoEscape, Error, ErrorKind, Output, State, escape_formatter};
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::ser::{Formatter, PrettyFormatter};
use serde_json::value::RawValue;

use crate::sample::Sample;

/// Name that no variable of a template can have, for what is known of a template's values.
pub(crate) const VALUES: &str = "what is known of its values";

/// Most bytes that `tojson` makes for one attempt: they are not part of the engine's own count of
/// work.
const MOST_JSON: usize = 16 << 20;

/// Longest number that is compared or calculated with. A template may do that some ten thousand
/// times, which would take minutes with one as long as a body.
const LONGEST: usize = 4096;

/// What is known of the values that a template is filled in with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    /// Whether there are values that the engine can't write as JSON: exact numbers, and samples.
    has_own: bool,
    /// Bytes that `tojson` made so far.
    made: Arc<AtomicUsize>,
    too_long: TooLong,
}

/// How many times a number was read that is too long for that. What compares values can return
/// no error, so it is counted, and the text that was made then is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct TooLong(Arc<AtomicUsize>);

impl TooLong {
    fn record(&self) {
        self.0.fetch_add(1, Access::Relaxed);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Access::Relaxed)
    }
}

impl Object for Values {}

impl Values {
    /// Values among which are samples.
    pub(crate) fn of_samples() -> Self {
        Self {
            has_own: true,
            ..Self::default()
        }
    }

    /// The count of numbers that were too long to be read.
    pub(crate) fn too_long(&self) -> &TooLong {
        &self.too_long
    }

    fn of(state: &State<'_, '_>) -> Option<Arc<Self>> {
        state.lookup(VALUES)?.downcast_object::<Self>()
    }

    fn charge(&self, bytes: usize) -> Result<(), Error> {
        let made = self
            .made
            .fetch_add(bytes, Access::Relaxed)
            .saturating_add(bytes);
        match made > MOST_JSON {
            true => Err(Error::from(ErrorKind::OutOfFuel)),
            false => Ok(()),
        }
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
        if let Some(whole) = number.as_whole::<u128>() {
            return whole.into();
        }
        self.has_own = true;
        let is_long = number.as_str().len() > LONGEST;
        Value::from_object(Exact {
            too_long: is_long.then(|| self.too_long.clone()),
            ..Exact::new(number.as_str())
        })
    }
}

/// A number that the engine has no number for, or would write differently.
pub(crate) struct Exact {
    text: Box<str>,
    /// What the text says, once somebody asked.
    decimal: OnceLock<Option<Arc<Decimal>>>,
    /// Where it is recorded that a number is read which is too long; `None` if this one is not.
    too_long: Option<TooLong>,
}

impl Exact {
    fn new(text: &str) -> Self {
        Self {
            text: text.into(),
            decimal: OnceLock::new(),
            too_long: None,
        }
    }

    /// Makes a number of a JSON number's text.
    pub(crate) fn value(text: &str) -> Value {
        Value::from_object(Self::new(text))
    }

    /// Makes a number of one that is written in a template. Fails if that is no number.
    pub(crate) fn written(text: &str) -> Result<Value, Error> {
        let exact = Self::new(text);
        match text.len() <= LONGEST && exact.decimal().is_some() {
            true => Ok(Value::from_object(exact)),
            false => Err(Error::new(ErrorKind::InvalidOperation, "no number")),
        }
    }

    /// The text of a value, if it is such a number.
    pub(crate) fn text(value: &Value) -> Option<&str> {
        value
            .downcast_object_ref::<Self>()
            .map(|exact| &*exact.text)
    }

    fn decimal(&self) -> Option<&Arc<Decimal>> {
        let parse = || Decimal::parse_clamped(&self.text).map(Arc::new);
        self.decimal.get_or_init(parse).as_ref()
    }

    fn magnitude(&self) -> Option<Magnitude> {
        match &self.too_long {
            Some(too_long) => Some(Magnitude::TooLong(too_long.clone())),
            None => self.decimal().cloned().map(Magnitude::Finite),
        }
    }
}

/// Fails if a value is a number that is too long to be read.
pub(crate) fn check_length(value: &Value) -> Result<(), Error> {
    match value
        .downcast_object_ref::<Exact>()
        .and_then(|exact| exact.too_long.as_ref())
    {
        Some(too_long) => {
            too_long.record();
            Err(Error::new(ErrorKind::InvalidOperation, "too many digits"))
        }
        None => Ok(()),
    }
}

/// The number as lists and tables show it.
impl fmt::Debug for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Object for Exact {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.decimal().is_none_or(|decimal| !decimal.is_zero())
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<Self>()?;
        Some(self.magnitude()?.order(&other.magnitude()?))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Returns the value as one that the engine can calculate with: the nearest number that it has.
pub(crate) fn counted(value: &Value) -> Value {
    if check_length(value).is_err() {
        return value.clone();
    }
    let number = Exact::text(value).and_then(|text| text.parse::<f64>().ok());
    match number.filter(|number| number.is_finite()) {
        Some(number) => number.into(),
        None => value.clone(),
    }
}

/// Returns the value as one that is compared by its digits, with all that is in it.
pub(crate) fn compared(value: &Value) -> Value {
    if let Some(number) = Magnitude::of(value) {
        let value = value.clone();
        return Value::from_object(Compared { number, value });
    }
    Lens::value(value, compared)
}

/// The exact value of a number, or of a truth value, which the engine takes for one.
pub(crate) fn decimal_of(value: &Value) -> Option<Arc<Decimal>> {
    if let Some(exact) = value.downcast_object_ref::<Exact>() {
        return exact.decimal().cloned();
    }
    let decimal = match value.kind() {
        ValueKind::Bool => Decimal::parse(if value.is_true() { "1" } else { "0" }),
        // The shortest text of a fraction that was calculated. One without end is no number.
        ValueKind::Number => Decimal::parse(&value.to_string()),
        _ => None,
    };
    decimal.map(Arc::new)
}

/// A number as it is compared with others.
#[derive(Clone)]
enum Magnitude {
    Finite(Arc<Decimal>),
    TooLong(TooLong),
}

impl Magnitude {
    fn of(value: &Value) -> Option<Self> {
        match value.downcast_object_ref::<Exact>() {
            Some(exact) => exact.magnitude(),
            None => decimal_of(value).map(Self::Finite),
        }
    }

    /// Compares two numbers. One that is too long counts as more than every other, so that what
    /// sorts them has an order.
    fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::TooLong(too_long), other) => {
                too_long.record();
                match other {
                    Self::TooLong(_) => Ordering::Equal,
                    Self::Finite(_) => Ordering::Greater,
                }
            }
            (Self::Finite(_), Self::TooLong(_)) => other.order(self).reverse(),
            (Self::Finite(one), Self::Finite(other)) => one.cmp(other),
        }
    }
}

/// A number that is compared by its digits.
struct Compared {
    number: Magnitude,
    value: Value,
}

impl fmt::Debug for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl Object for Compared {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.value.is_true()
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<Self>()?;
        Some(self.number.order(&other.number))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.value, f)
    }
}

/// A list or table of which every value is seen through a function.
struct Lens {
    inner: Value,
    through: fn(&Value) -> Value,
}

impl Lens {
    /// Returns `value` as it is seen, if there is anything in it.
    fn value(value: &Value, through: fn(&Value) -> Value) -> Value {
        let is_seen = matches!(
            value.kind(),
            ValueKind::Seq | ValueKind::Iterable | ValueKind::Map
        );
        let is_own = value.downcast_object_ref::<Self>().is_some();
        if !is_seen || is_own || value.is_kwargs() || Sample::text(value).is_some() {
            return value.clone();
        }
        let inner = value.clone();
        Value::from_object(Self { inner, through })
    }
}

impl fmt::Debug for Lens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl Object for Lens {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        match self.inner.kind() {
            ValueKind::Map => ObjectRepr::Map,
            ValueKind::Seq => ObjectRepr::Seq,
            _ => ObjectRepr::Iterable,
        }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let key = original(key);
        let get = |key: &Value| self.inner.get_item(key).ok();
        let found = get(&key).filter(|found| !found.is_undefined());
        // A key that a template wrote is the engine's number.
        let found = found.or_else(|| get(&counted(&key)))?;
        (!found.is_undefined()).then(|| (self.through)(&found))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let through = self.through;
        match self.inner.try_iter() {
            Ok(items) => Enumerator::Iter(Box::new(items.map(move |item| through(&item)))),
            Err(_) => Enumerator::Empty,
        }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        self.inner.len()
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

/// Returns the value that [`compared`] or [`counted_within`] was given, also within lists that
/// the engine made of such.
pub(crate) fn original(value: &Value) -> Value {
    if let Some(compared) = value.downcast_object_ref::<Compared>() {
        return compared.value.clone();
    }
    if let Some(lens) = value.downcast_object_ref::<Lens>() {
        return lens.inner.clone();
    }
    Lens::value(value, original)
}

/// Returns the value with the numbers of its tables as the engine can calculate with them.
pub(crate) fn counted_within(value: &Value) -> Value {
    match value.kind() {
        ValueKind::Map => Lens::value(value, counted_within),
        _ => counted(value),
    }
}

/// Returns a list as [`counted_within`] has its items.
pub(crate) fn counted_items(value: &Value) -> Value {
    Lens::value(value, counted_within)
}

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
