//! Numbers in templates: written as they came, compared by their digits, and calculated with as
//! the template engine's numbers.
//!
//! The engine has whole numbers of 128 bits and fractions of 64, and would write `1.10` as `1.1`.
//! So a whole number that fits is the engine's, and every other one is an [`Exact`], which is
//! written as its text wherever the engine makes a text of it. The engine can't calculate with
//! that, and compares it with nothing else: [`counted`] and [`compared`](crate::comparison::compared) make what it can.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering as Access};
use std::sync::{Arc, OnceLock};

use dispatch::{Decimal, ExactNumber, ExactValue};
use minijinja::value::{DynObject, Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

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
    pub(crate) has_own: bool,
    /// Bytes that `tojson` made so far.
    made: Arc<AtomicUsize>,
}

thread_local! {
    /// How many times this thread has read a number that is too long for that. What compares
    /// values can return no error, so it is counted, and the text that was made then is none. A
    /// text is made on one thread.
    static TOO_LONG: Cell<u64> = const { Cell::new(0) };
}

/// Counts a number that is too long to be read.
fn record_too_long() {
    TOO_LONG.set(TOO_LONG.get().wrapping_add(1));
}

/// How many numbers that are too long this thread has read.
pub(crate) fn count_too_long() -> u64 {
    TOO_LONG.get()
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

    pub(crate) fn of(state: &State<'_, '_>) -> Option<Arc<Self>> {
        state.lookup(VALUES)?.downcast_object::<Self>()
    }

    pub(crate) fn charge(&self, bytes: usize) -> Result<(), Error> {
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
        Value::from_object(Exact::new(number.as_str()))
    }
}

/// A number that the engine has no number for, or would write differently.
pub(crate) struct Exact {
    text: Box<str>,
    /// What the text says, once somebody asked.
    decimal: OnceLock<Option<Arc<Decimal>>>,
}

impl Exact {
    fn new(text: &str) -> Self {
        Self {
            text: text.into(),
            decimal: OnceLock::new(),
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

    fn is_too_long(&self) -> bool {
        self.text.len() > LONGEST
    }

    fn magnitude(&self) -> Option<Magnitude> {
        match self.is_too_long() {
            true => Some(Magnitude::TooLong),
            false => self.decimal().cloned().map(Magnitude::Finite),
        }
    }
}

/// Fails if a value is a number that is too long to be read.
pub(crate) fn check_length(value: &Value) -> Result<(), Error> {
    let exact = value.downcast_object_ref::<Exact>();
    if exact.is_some_and(Exact::is_too_long) {
        record_too_long();
        return Err(Error::new(ErrorKind::InvalidOperation, "too many digits"));
    }
    Ok(())
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
pub(crate) enum Magnitude {
    Finite(Arc<Decimal>),
    TooLong,
}

impl Magnitude {
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value.downcast_object_ref::<Exact>() {
            Some(exact) => exact.magnitude(),
            None => decimal_of(value).map(Self::Finite),
        }
    }

    /// Compares two numbers. One that is too long counts as more than every other, so that what
    /// sorts them has an order.
    pub(crate) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::TooLong, other) => {
                record_too_long();
                match other {
                    Self::TooLong => Ordering::Equal,
                    Self::Finite(_) => Ordering::Greater,
                }
            }
            (Self::Finite(_), Self::TooLong) => other.order(self).reverse(),
            (Self::Finite(one), Self::Finite(other)) => one.cmp(other),
        }
    }
}
