//! The view of an event's body that conditions and templates have.

use std::collections::BTreeMap;

use crate::{Event, ExactValue};

/// Reason why a body has no view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unviewable {
    /// The JSON is genuine, but can't be read into values.
    #[error("the event's JSON is nested more than 128 deep, or a number or a text in it is out of range")]
    OutOfRange,
    /// A key or an attribute occurs twice: nobody can know which one is meant, and readers
    /// differ.
    #[error("a key or an attribute occurs twice in the event's JSON")]
    Repeated,
}

impl Event {
    /// All fields of the body under their own names, with `environment` and `origin` added, and
    /// with `attributes` as an object by name: Fluent sends an object, a list of `{name, type,
    /// value}`, or nothing.
    ///
    /// Fails for JSON that is nested more than 128 deep, for values that are genuine but no JSON
    /// values (`1e400`, half a surrogate pair), and for keys that occur twice anywhere: a
    /// destination that reads the body may take the other one. Numbers are the text that was
    /// written, of any length.
    pub fn view(&self) -> Result<BTreeMap<String, ExactValue>, Unviewable> {
        let mut fields = unique(self.body())?;
        let attributes = by_name(fields.remove("attributes").unwrap_or_default())?;
        fields.insert("attributes".to_owned(), attributes);
        fields.insert("environment".to_owned(), self.environment().as_str().into());
        fields.insert("origin".to_owned(), self.origin().as_str().into());
        Ok(fields)
    }
}

fn unique(body: &[u8]) -> Result<BTreeMap<String, ExactValue>, Unviewable> {
    match ExactValue::parse(body)? {
        ExactValue::Table(fields) => Ok(fields),
        _ => Err(Unviewable::OutOfRange),
    }
}

fn by_name(attributes: ExactValue) -> Result<ExactValue, Unviewable> {
    let list = match attributes {
        ExactValue::Table(attributes) => return Ok(ExactValue::Table(attributes)),
        ExactValue::List(list) => list,
        _ => Vec::new(),
    };
    let mut attributes = BTreeMap::new();
    for (name, value) in list.into_iter().filter_map(named) {
        if attributes.insert(name, value).is_some() {
            return Err(Unviewable::Repeated);
        }
    }
    Ok(ExactValue::Table(attributes))
}

fn named(attribute: ExactValue) -> Option<(String, ExactValue)> {
    let ExactValue::Table(mut attribute) = attribute else { return None };
    let Some(ExactValue::Text(name)) = attribute.remove("name") else { return None };
    Some((name, attribute.remove("value").unwrap_or_default()))
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
}
