//! Values as they are compared: numbers by every digit, with all that is in lists and tables.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Value, ValueKind};

use crate::numbers::{Magnitude, counted};
use crate::sample::Sample;

/// Returns the value as one that is compared by its digits, with all that is in it.
pub(crate) fn compared(value: &Value) -> Value {
    if let Some(number) = Magnitude::of(value) {
        let value = value.clone();
        return Value::from_object(Compared { number, value });
    }
    Lens::value(value, compared)
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
