//! Values as they are compared: numbers by every digit, with all that is in lists and tables, and
//! everything else as the engine compares it.
//!
//! The engine orders values of different kinds by their kinds, and has one kind for all objects
//! of ours. So whatever is compared with a number has to be such an object too: a [`Compared`].

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use minijinja::value::{DynObject, Enumerator, Object, ObjectRepr, Value, ValueKind};

use crate::numbers::{Exact, Magnitude, counted};
use crate::sample::Sample;

/// What is done with capitals when two texts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    Exact,
    /// Those of ASCII count as small letters, as for the engine's filters that sort.
    FoldAscii,
    /// All count as small letters, as for its filter `unique`.
    Fold,
}

impl Case {
    fn order(self, one: &str, other: &str) -> Ordering {
        match self {
            Self::Exact => one.cmp(other),
            Self::FoldAscii => one.to_ascii_lowercase().cmp(&other.to_ascii_lowercase()),
            Self::Fold => one.to_lowercase().cmp(&other.to_lowercase()),
        }
    }
}

/// Returns the value as one that is compared with another.
pub(crate) fn compared(value: &Value) -> Value {
    compared_in(value, Case::Exact)
}

fn compared_in(value: &Value, case: Case) -> Value {
    let is_own = value.downcast_object_ref::<Compared>().is_some();
    let is_known = !matches!(value.kind(), ValueKind::Undefined | ValueKind::Invalid);
    if is_own || !is_known || value.is_kwargs() || Sample::text(value).is_some() {
        return value.clone();
    }
    Value::from_object(Compared {
        number: Magnitude::of(value),
        value: value.clone(),
        case,
    })
}

/// Returns a list or a table of which every value is [`compared`]; another value as it is.
pub(crate) fn container(value: &Value) -> Value {
    container_in(value, Case::Exact)
}

/// The same, for a filter that compares so.
pub(crate) fn container_in(value: &Value, case: Case) -> Value {
    Lens::value(value, Through::Compared(case))
}

/// A value that is compared: a number by its digits.
struct Compared {
    number: Option<Magnitude>,
    value: Value,
    case: Case,
}

impl Compared {
    fn of(value: &Value) -> Self {
        Self {
            number: Magnitude::of(value),
            value: value.clone(),
            case: Case::Exact,
        }
    }

    fn kind(&self) -> ValueKind {
        match Exact::text(&self.value) {
            Some(_) => ValueKind::Number,
            None => self.value.kind(),
        }
    }

    fn order(&self, other: &Self) -> Ordering {
        if let (Some(one), Some(other)) = (&self.number, &other.number) {
            return one.order(other);
        }
        let is_list = |kind| matches!(kind, ValueKind::Seq | ValueKind::Iterable);
        let kinds = self.kind().cmp(&other.kind());
        if is_list(self.kind()) && is_list(other.kind()) {
            let are_tuples = self.value.is_tuple().cmp(&other.value.is_tuple());
            return are_tuples.then_with(|| match order_items(&self.value, &other.value) {
                // The engine takes lists for the same whatever makes their items.
                Ordering::Equal => Ordering::Equal,
                items => kinds.then(items),
            });
        }
        kinds.then_with(|| match self.kind() {
            ValueKind::Map => order_tables(&self.value, &other.value),
            // A number without end, which has no digits.
            ValueKind::Number => counted(&self.value).cmp(&counted(&other.value)),
            _ => match (self.value.as_str(), other.value.as_str()) {
                (Some(one), Some(other)) => self.case.order(one, other),
                _ => self.value.cmp(&other.value),
            },
        })
    }
}

fn order_values(one: &Value, other: &Value) -> Ordering {
    Compared::of(one).order(&Compared::of(other))
}

fn items(value: &Value) -> impl Iterator<Item = Value> {
    value.try_iter().into_iter().flatten()
}

fn order_items(one: &Value, other: &Value) -> Ordering {
    let mut others = items(other);
    for item in items(one) {
        let Some(other) = others.next() else {
            return Ordering::Greater;
        };
        let order = order_values(&item, &other);
        if order.is_ne() {
            return order;
        }
    }
    match others.next() {
        Some(_) => Ordering::Less,
        None => Ordering::Equal,
    }
}

/// Compares two tables key by key as they come, as the engine does.
fn order_tables(one: &Value, other: &Value) -> Ordering {
    let mut others = items(other);
    for key in items(one) {
        let Some(other_key) = others.next() else {
            return Ordering::Greater;
        };
        let keys = order_values(&key, &other_key);
        if keys.is_ne() {
            let is_same = are_same_tables(one, other);
            return if is_same { Ordering::Equal } else { keys };
        }
        let values = order_fields(one, &key, other, &other_key);
        if values.is_ne() {
            return values;
        }
    }
    match others.next() {
        Some(_) => Ordering::Less,
        None => Ordering::Equal,
    }
}

fn order_fields(one: &Value, key: &Value, other: &Value, other_key: &Value) -> Ordering {
    let value = |of: &Value, key: &Value| field(of, key).unwrap_or_default();
    order_values(&value(one, key), &value(other, other_key))
}

/// Whether two tables are the same whose keys come in another order.
fn are_same_tables(one: &Value, other: &Value) -> bool {
    one.len() == other.len()
        && items(one).all(|key| field(other, &key).is_some())
        && items(one).all(|key| order_fields(one, &key, other, &key).is_eq())
}

/// The value of a key, which may be a number of ours.
fn field(of: &Value, key: &Value) -> Option<Value> {
    let get = |key: &Value| of.get_item(key).ok();
    let found = get(key).filter(|found| !found.is_undefined());
    // A key that a template wrote is the engine's number.
    let found = found.or_else(|| get(&counted(key)))?;
    (!found.is_undefined()).then_some(found)
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

    /// A field, by which a filter compares.
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let found = field(&self.value, &original(key))?;
        Some(compared_in(&found, self.case))
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.value.is_true()
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(self.order(other.downcast_ref::<Self>()?))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.value, f)
    }
}

/// What the values of a list or table are seen through.
#[derive(Clone, Copy, Debug)]
enum Through {
    Compared(Case),
    Original,
    Counted,
}

impl Through {
    fn see(self, value: &Value) -> Value {
        match self {
            Self::Compared(case) => compared_in(value, case),
            Self::Original => original(value),
            Self::Counted => counted_within(value),
        }
    }
}

/// A list or table of which every value is seen so.
struct Lens {
    inner: Value,
    through: Through,
}

impl Lens {
    /// Returns `value` as it is seen, if there is anything in it.
    fn value(value: &Value, through: Through) -> Value {
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
        field(&self.inner, &original(key)).map(|found| self.through.see(&found))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let through = self.through;
        match self.inner.try_iter() {
            Ok(items) => Enumerator::Iter(Box::new(items.map(move |item| through.see(&item)))),
            Err(_) => Enumerator::Empty,
        }
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        self.inner.len()
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_list = self.inner.kind() != ValueKind::Map;
        match self.through {
            // What is in it may still be seen as it is compared.
            Through::Original if is_list => {
                let items: Vec<_> = items(&self.inner).map(|item| original(&item)).collect();
                // The engine writes a group as a pair, and has no other sign of one.
                let is_pair = self.inner.to_string().starts_with('(');
                match &items[..] {
                    [one, other] if is_pair => {
                        fmt::Display::fmt(&Value::from((one.clone(), other.clone())), f)
                    }
                    _ => fmt::Display::fmt(&Value::from(items), f),
                }
            }
            _ => fmt::Display::fmt(&self.inner, f),
        }
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
    Lens::value(value, Through::Original)
}

/// Returns the value with the numbers of its tables as the engine can calculate with them.
pub(crate) fn counted_within(value: &Value) -> Value {
    match value.kind() {
        ValueKind::Map => Lens::value(value, Through::Counted),
        _ => counted(value),
    }
}

/// Returns a list as [`counted_within`] has its items.
pub(crate) fn counted_items(value: &Value) -> Value {
    Lens::value(value, Through::Counted)
}
