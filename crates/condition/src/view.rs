//! The view of an event that a condition has.

use std::collections::HashMap;
use std::sync::Arc;

use cel::Value;
use cel::objects::{Key, Map};
use event_model::{Event, ExactNumber, ExactValue, Unviewable};

use crate::Undecided;
use crate::names::Reads;

/// Largest number of values in one event: a body of 2 MiB can have a million.
const MAX_VALUES: u64 = 200_000;

/// The view of `event` for an expression that reads `reads`, and the number of values in it.
pub(crate) fn of(event: &Event, reads: &Reads) -> Result<(Value, u64), Undecided> {
    let mut fields = event.view().map_err(|error| match error {
        Unviewable::Repeated => Undecided("a key or an attribute occurs twice in the event's JSON"),
        _ => Undecided("the event's JSON is nested too deep, or a value in it is out of range"),
    })?;
    // Making the library's values of a field costs more than parsing it did.
    fields.retain(|name, _| reads.has(name));
    let mut size = 0;
    let view = value(ExactValue::Table(fields), &mut size);
    if size > MAX_VALUES {
        return Err(Undecided("the event holds too many values"));
    }
    Ok((view, size))
}

fn value(json: ExactValue, size: &mut u64) -> Value {
    *size += 1;
    match json {
        ExactValue::Null => Value::Null,
        ExactValue::Bool(value) => Value::Bool(value),
        ExactValue::Text(text) => {
            // Texts are compared and searched, so a long one counts as several values.
            *size += text.len() as u64 / 64;
            Value::String(Arc::new(text))
        }
        ExactValue::Number(number) => number_of(&number),
        ExactValue::List(list) => {
            Value::List(Arc::new(list.into_iter().map(|element| value(element, size)).collect()))
        }
        ExactValue::Table(fields) => {
            let fields = fields.into_iter().map(|(name, field)| (Key::from(name), value(field, size)));
            Value::Map(Map { map: Arc::new(fields.collect::<HashMap<_, _>>()) })
        }
    }
}

/// The number in an expression, which has 64 bits. A longer whole number is an id: rounded it
/// would equal others, so it becomes a text of its digits. A fraction becomes the nearest number.
fn number_of(number: &ExactNumber) -> Value {
    if let Some(whole) = number.as_whole() {
        return Value::Int(whole);
    }
    match number.is_whole() {
        true => Value::String(Arc::new(number.as_str().to_owned())),
        false => Value::Float(number.as_f64()),
    }
}
