//! An event as a condition sees it.

use std::collections::HashMap;
use std::sync::Arc;

use cel::Value;
use cel::objects::{Key, Map};
use event_model::{Event, Unviewable};
use serde_json::Value as Json;

use crate::Undecided;

/// Most values in one event: a body of 2 MiB can hold a million.
const MAX_VALUES: u64 = 200_000;

/// The view of `event`, and how many values are in it.
pub(crate) fn of(event: &Event) -> Result<(Value, u64), Undecided> {
    let fields = event.view().map_err(|error| match error {
        Unviewable::Repeated => Undecided("a key or an attribute occurs twice in the event's JSON"),
        _ => Undecided("the event's JSON is nested too deep, or a value in it is out of range"),
    })?;
    let mut size = 0;
    let view = value(Json::Object(fields), &mut size);
    if size > MAX_VALUES {
        return Err(Undecided("the event holds too many values"));
    }
    Ok((view, size))
}

fn value(json: Json, size: &mut u64) -> Value {
    *size += 1;
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::String(text) => {
            // Texts are compared and searched: long ones cost as many values.
            *size += text.len() as u64 / 64;
            Value::String(Arc::new(text))
        }
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::Int(whole),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::Array(list) => {
            Value::List(Arc::new(list.into_iter().map(|element| value(element, size)).collect()))
        }
        Json::Object(fields) => {
            let fields = fields.into_iter().map(|(name, field)| (Key::from(name), value(field, size)));
            Value::Map(Map { map: Arc::new(fields.collect::<HashMap<_, _>>()) })
        }
    }
}
