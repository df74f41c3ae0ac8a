//! The view of an event that a condition has.

use std::collections::HashMap;

use cel::common::types::{CelBool, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString};
use cel::common::value::Val;
use event_model::{Event, ExactNumber, ExactValue, ViewError};

use crate::ConditionError;
use crate::names::Reads;
use crate::numbers::Number;

/// Largest number of values in one event: a body of 2 MiB can have a million.
const MAX_VALUES: u64 = 200_000;

/// What an expression that reads `reads` sees of `event`, and how many values are in that.
pub(crate) fn of(event: &Event, reads: &Reads) -> Result<(Box<dyn Val>, u64), ConditionError> {
    // Making values of a field costs more than reading past it.
    let fields = event
        .view_of(|name| reads.has(name))
        .map_err(|error| match error {
            ViewError::Repeated => {
                ConditionError("a key or an attribute occurs twice in the event's JSON".into())
            }
            _ => ConditionError(
                "the event's JSON is nested too deep, or a text in it is out of range".into(),
            ),
        })?;
    let mut size = 0;
    let view = value(ExactValue::Table(fields), &mut size);
    if size > MAX_VALUES {
        return Err(ConditionError("the event holds too many values".into()));
    }
    Ok((view, size))
}

fn value(json: ExactValue, size: &mut u64) -> Box<dyn Val> {
    *size += 1;
    match json {
        ExactValue::Null => Box::new(CelNull),
        ExactValue::Bool(value) => Box::new(CelBool::from(value)),
        ExactValue::Text(text) => {
            *size += steps(&text);
            Box::new(CelString::from(text))
        }
        ExactValue::Number(number) => {
            *size += steps(number.as_str());
            number_of(&number)
        }
        ExactValue::List(list) => {
            let list: Vec<_> = list
                .into_iter()
                .map(|element| value(element, size))
                .collect();
            Box::new(CelList::from(list))
        }
        ExactValue::Table(fields) => {
            let fields = fields
                .into_iter()
                .map(|(name, field)| (CelMapKey::from(name), value(field, size)));
            Box::new(CelMap::from(fields.collect::<HashMap<_, _>>()))
        }
    }
}

/// Texts and numbers are compared and searched, so a long one counts as several values.
fn steps(text: &str) -> u64 {
    text.len() as u64 / 64
}

/// The expressions' numbers have 64 bits. What does not fit is a number of ours.
fn number_of(number: &ExactNumber) -> Box<dyn Val> {
    match number.as_whole::<i64>() {
        Some(whole) => Box::new(CelInt::from(whole)),
        None => Box::new(Number::of_event(number)),
    }
}
