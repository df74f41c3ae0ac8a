//! An event's body as conditions and templates see it.

use serde_json::{Map, Value};

use crate::Event;

/// The body can't be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event's JSON is nested more than 128 deep, or a number or a text in it is out of range")]
pub struct Unviewable;

impl Event {
    /// All fields of the body under their own names, with `environment` and `origin`
    /// added and `attributes` as an object by name: Fluent sends an object, or a list of
    /// `{name, type, value}`, or nothing.
    ///
    /// Refuses JSON that is nested more than 128 deep, and values that are genuine
    /// and still no JSON values: `1e400`, half a surrogate pair.
    pub fn view(&self) -> Result<Map<String, Value>, Unviewable> {
        let mut fields: Map<String, Value> = serde_json::from_slice(self.body()).map_err(|_| Unviewable)?;
        let attributes = by_name(fields.remove("attributes").unwrap_or(Value::Null));
        fields.insert("attributes".to_owned(), attributes);
        fields.insert("environment".to_owned(), self.environment().as_str().into());
        fields.insert("origin".to_owned(), self.origin().as_str().into());
        Ok(fields)
    }
}

fn by_name(attributes: Value) -> Value {
    match attributes {
        Value::Object(attributes) => Value::Object(attributes),
        Value::Array(list) => list.into_iter().filter_map(named).collect(),
        _ => Value::Object(Map::new()),
    }
}

fn named(attribute: Value) -> Option<(String, Value)> {
    let Value::Object(mut attribute) = attribute else { return None };
    let Some(Value::String(name)) = attribute.remove("name") else { return None };
    Some((name, attribute.remove("value").unwrap_or(Value::Null)))
}
