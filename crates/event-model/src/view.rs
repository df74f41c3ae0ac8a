//! The view of an event's body that conditions and templates have.

use std::collections::BTreeMap;

use crate::exact::{ATTRIBUTES, fields_of};
use crate::{Event, ExactValue};

/// Reason why a body has no view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The JSON is genuine, but can't be read into values.
    #[error("the event's JSON is nested more than 128 deep, or a text in it is out of range")]
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
    /// Fails for JSON that is nested more than 128 deep, for texts that are genuine but no text
    /// of a program (half a surrogate pair), and for keys that occur twice anywhere: a
    /// destination that reads the body may take the other one. Numbers are the text that was
    /// written, of any length.
    pub fn view(&self) -> Result<BTreeMap<String, ExactValue>, ViewError> {
        self.view_of(|_| true)
    }

    /// The same, of which only the fields that are wanted are made. Refuses what
    /// [`view`](Self::view) does, in whichever field it is.
    pub fn view_of(
        &self,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<BTreeMap<String, ExactValue>, ViewError> {
        let mut fields = body_fields(self.body(), &is_wanted)?;
        for (name, value) in [
            ("environment", self.environment().as_str()),
            ("origin", self.origin().as_str()),
        ] {
            if is_wanted(name) {
                fields.insert(name.to_owned(), value.into());
            }
        }
        Ok(fields)
    }
}

fn body_fields(
    body: &[u8],
    is_wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, ExactValue>, ViewError> {
    let mut fields = fields_of(body, &is_wanted)?;
    if is_wanted(ATTRIBUTES) {
        let attributes = by_name(fields.remove(ATTRIBUTES).unwrap_or_default())?;
        fields.insert(ATTRIBUTES.to_owned(), attributes);
    }
    Ok(fields)
}

fn by_name(attributes: ExactValue) -> Result<ExactValue, ViewError> {
    let list = match attributes {
        ExactValue::Table(attributes) => return Ok(ExactValue::Table(attributes)),
        ExactValue::List(list) => list,
        _ => Vec::new(),
    };
    let mut attributes = BTreeMap::new();
    for (name, value) in list.into_iter().filter_map(named) {
        if attributes.insert(name, value).is_some() {
            return Err(ViewError::Repeated);
        }
    }
    Ok(ExactValue::Table(attributes))
}

fn named(attribute: ExactValue) -> Option<(String, ExactValue)> {
    let ExactValue::Table(mut attribute) = attribute else {
        return None;
    };
    let Some(ExactValue::Text(name)) = attribute.remove("name") else {
        return None;
    };
    Some((name, attribute.remove("value").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: Result<(), ViewError>) {
        // Whatever is wanted of it.
        for wanted in [
            &["attributes", "x", "z", "deep"][..],
            &["attributes"],
            &["x"],
            &["n"],
            &[],
        ] {
            let viewed = body_fields(body.as_bytes(), |name| wanted.contains(&name));
            assert_eq!(
                viewed.map(drop),
                expected,
                "{body}, of which {wanted:?} is wanted"
            );
        }
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
            check(twice, Err(ViewError::Repeated));
        }
        check(
            r#"{"x":{"y":1},"z":{"y":2},"attributes":{"Tier":1,"tier":2}}"#,
            Ok(()),
        );
    }

    #[test]
    fn what_makes_no_value_is_said_to_be_out_of_range() {
        for odd in [r#"{"x":"\ud800"}"#, r#"{"\ud800":1}"#] {
            check(odd, Err(ViewError::OutOfRange));
        }
        check(
            &format!(r#"{{"x":{}1{}}}"#, "[".repeat(200), "]".repeat(200)),
            Err(ViewError::OutOfRange),
        );
        for other in ["[]", "1", r#"{"x":1} 2"#, r#"{"x":1"#] {
            check(other, Err(ViewError::OutOfRange));
        }
    }

    #[test]
    fn a_number_is_no_fault_however_large_it_is() {
        let long = "9".repeat(310);
        for number in ["1e400", "-1E+400", &long, "1.5e99999999999999999999"] {
            check(&format!(r#"{{"x":{number},"n":1}}"#), Ok(()));
            let body = format!(r#"{{"a":1e400,"x":[{number},"1e400"],"n":2}}"#);
            let fields = body_fields(body.as_bytes(), |name| name == "x").unwrap();
            assert_eq!(
                format!("{:?}", fields["x"]),
                format!("List([Number({number}), Text(\"1e400\")])")
            );
        }
        for odd in ["1e400.5", "01e400", "1e400 1", "--1e400"] {
            check(&format!(r#"{{"x":{odd}}}"#), Err(ViewError::OutOfRange));
        }
    }

    #[test]
    fn of_two_faults_the_same_one_is_told_whatever_is_wanted() {
        check(r#"{"x":1,"x":1e400}"#, Err(ViewError::Repeated));
        check(r#"{"x":1e400,"x":1}"#, Err(ViewError::Repeated));
        check(r#"{"x":{"y":1,"y":1e400}}"#, Err(ViewError::Repeated));
        check(
            r#"{"attributes":[{"name":"a"},{"name":"a"}],"x":1e400}"#,
            Err(ViewError::Repeated),
        );
        check(
            r#"{"attributes":[{"name":"a"},{"name":"a"}],"x":"\ud800"}"#,
            Err(ViewError::OutOfRange),
        );
        // No names of attributes: the first is no text, and the second stands in no list.
        check(
            r#"{"attributes":[{"name":1},{"name":1},[{"name":"a"},{"name":"a"}]]}"#,
            Ok(()),
        );
        check(r#"{"x":[{"name":"a"},{"name":"a"}]}"#, Ok(()));
    }

    #[test]
    fn a_wanted_number_is_the_text_that_was_written_after_numbers_that_are_not_wanted() {
        let body =
            br#"{"a":[1,2.50,{"b":-3}],"c":"4","x":9405511899560000000001,"d":5,"z":[1.10,7]}"#;
        let viewed = body_fields(body, |name| name == "x" || name == "z").unwrap();
        let all = body_fields(body, |_| true).unwrap();
        assert_eq!(viewed.keys().collect::<Vec<_>>(), ["x", "z"]);
        assert!(
            viewed
                .iter()
                .all(|(name, value)| all.get(name) == Some(value)),
            "{viewed:?}"
        );
        assert!(
            format!("{viewed:?}").contains("9405511899560000000001"),
            "{viewed:?}"
        );
        assert!(format!("{viewed:?}").contains("1.10"), "{viewed:?}");
    }
}
