//! An event's body as conditions and templates see it.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::Event;

/// The body can't be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unviewable {
    /// JSON that is genuine and still makes no value.
    #[error("the event's JSON is nested more than 128 deep, or a number or a text in it is out of range")]
    OutOfRange,
    /// Which of the two is meant nobody can know, and readers take one or the other.
    #[error("a key or an attribute occurs twice in the event's JSON")]
    Repeated,
}

impl Event {
    /// All fields of the body under their own names, with `environment` and `origin`
    /// added and `attributes` as an object by name: Fluent sends an object, or a list of
    /// `{name, type, value}`, or nothing.
    ///
    /// Refuses JSON that is nested more than 128 deep, values that are genuine
    /// and still no JSON values (`1e400`, half a surrogate pair), and keys that are given
    /// twice anywhere: a destination that reads the body may take the other one.
    pub fn view(&self) -> Result<Map<String, Value>, Unviewable> {
        let mut fields = unique(self.body())?;
        let attributes = by_name(fields.remove("attributes").unwrap_or(Value::Null))?;
        fields.insert("attributes".to_owned(), attributes);
        fields.insert("environment".to_owned(), self.environment().as_str().into());
        fields.insert("origin".to_owned(), self.origin().as_str().into());
        Ok(fields)
    }
}

fn unique(body: &[u8]) -> Result<Map<String, Value>, Unviewable> {
    let is_repeated = Cell::new(false);
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = UniqueKeys(&is_repeated).deserialize(&mut json);
    match read.and_then(|value| json.end().map(|()| value)) {
        Ok(Value::Object(fields)) => Ok(fields),
        Err(_) if is_repeated.get() => Err(Unviewable::Repeated),
        Ok(_) | Err(_) => Err(Unviewable::OutOfRange),
    }
}

fn by_name(attributes: Value) -> Result<Value, Unviewable> {
    let list = match attributes {
        Value::Object(attributes) => return Ok(Value::Object(attributes)),
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    let mut attributes = Map::new();
    for (name, value) in list.into_iter().filter_map(named) {
        if attributes.insert(name, value).is_some() {
            return Err(Unviewable::Repeated);
        }
    }
    Ok(Value::Object(attributes))
}

fn named(attribute: Value) -> Option<(String, Value)> {
    let Value::Object(mut attribute) = attribute else { return None };
    let Some(Value::String(name)) = attribute.remove("name") else { return None };
    Some((name, attribute.remove("value").unwrap_or(Value::Null)))
}

/// Reads a value; ends at a key that its object had before, and notes that.
#[derive(Clone, Copy)]
struct UniqueKeys<'n>(&'n Cell<bool>);

impl<'de> DeserializeSeed<'de> for UniqueKeys<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = object.next_key::<String>()? {
            if fields.contains_key(&key) {
                self.0.set(true);
                return Err(A::Error::custom("a key occurs twice"));
            }
            fields.insert(key, object.next_value_seed(self)?);
        }
        Ok(fields.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: Result<(), Unviewable>) {
        let viewed = unique(body.as_bytes());
        let viewed = viewed.and_then(|mut fields| by_name(fields.remove("attributes").unwrap_or_default()));
        assert_eq!(viewed.map(drop), expected, "{body}");
    }

    #[test]
    fn a_key_or_an_attribute_that_is_there_twice_is_not_chosen_from() {
        for twice in [
            r#"{"x":1,"x":2}"#,
            r#"{"x":{"y":[{"z":1,"z":1}]}}"#,
            r#"{"attributes":{"tier":"gold","tier":"plain"}}"#,
            r#"{"attributes":{"tier":"gold","t\u0069er":"plain"}}"#,
            r#"{"attributes":[{"name":"tier","value":1},{"name":"tier","value":2}]}"#,
            r#"{"attributes":[{"name":"a","name":"b","value":1}]}"#,
        ] {
            check(twice, Err(Unviewable::Repeated));
        }
        check(r#"{"x":{"y":1},"z":{"y":2},"attributes":{"Tier":1,"tier":2}}"#, Ok(()));
    }

    #[test]
    fn what_makes_no_value_is_said_to_be_out_of_range() {
        for odd in [r#"{"x":1e400}"#, r#"{"x":"\ud800"}"#, r#"{"\ud800":1}"#] {
            check(odd, Err(Unviewable::OutOfRange));
        }
        check(&format!(r#"{{"x":{}1{}}}"#, "[".repeat(200), "]".repeat(200)), Err(Unviewable::OutOfRange));
    }

    #[test]
    fn values_are_those_of_the_body() {
        let body = r#"{"a":[1,-2,3.5,true,null,"\u00e9"],"b":{"c":18446744073709551615}}"#;
        assert_eq!(
            Value::Object(unique(body.as_bytes()).unwrap()),
            serde_json::from_str::<Value>(body).unwrap()
        );
    }
}
