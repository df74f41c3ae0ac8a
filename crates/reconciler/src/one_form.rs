//! JSON in one form, so that the same record always gives the same bytes.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

/// Levels below which a value stays as it is written. Fluent's attributes have a handful.
const DEEPEST: usize = 100;

/// Sorts the keys of every object and leaves out white space. Numbers and texts stay as they are
/// written: read as numbers, long ones would be rounded, and some could not be read at all.
pub(crate) fn one_form(json: &RawValue) -> Box<RawValue> {
    let mut written = String::with_capacity(json.get().len());
    write(json, DEEPEST, &mut written);
    // Made of JSON's own pieces, so it always is JSON.
    RawValue::from_string(written).unwrap_or_else(|_| json.to_owned())
}

fn write(json: &RawValue, depth: usize, to: &mut String) {
    let text = json.get();
    match text.as_bytes() {
        // A key that no program can hold, half a surrogate pair, leaves its object as it is.
        [b'{', ..] if depth > 0 => {
            match serde_json::from_str::<BTreeMap<String, &RawValue>>(text) {
                Ok(object) => {
                    write_all(('{', '}'), object, to, |(key, value), to| {
                        to.push_str(&Value::from(key).to_string());
                        to.push(':');
                        write(value, depth - 1, to);
                    });
                }
                Err(_) => to.push_str(text),
            }
        }
        [b'[', ..] if depth > 0 => match serde_json::from_str::<Vec<&RawValue>>(text) {
            Ok(list) => write_all(('[', ']'), list, to, |value, to| {
                write(value, depth - 1, to)
            }),
            Err(_) => to.push_str(text),
        },
        _ => to.push_str(text),
    }
}

fn write_all<T>(
    (open, close): (char, char),
    parts: impl IntoIterator<Item = T>,
    to: &mut String,
    one: impl Fn(T, &mut String),
) {
    to.push(open);
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            to.push(',');
        }
        one(part, to);
    }
    to.push(close);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: &str, expected: &str) {
        let json = RawValue::from_string(given.to_owned()).unwrap();
        assert_eq!(one_form(&json).get(), expected);
    }

    #[test]
    fn keys_are_sorted_and_values_stay_as_they_are_written() {
        check(
            r#"{ "b": [ 1.10, {"z":1e999 , "a":"\u00e9"} ], "a\"": null }"#,
            r#"{"a\"":null,"b":[1.10,{"a":"\u00e9","z":1e999}]}"#,
        );
        check("[ ]", "[]");
        check(r#"{ "\ud800": 1 }"#, r#"{ "\ud800": 1 }"#);
        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        check(&deep, &deep);
    }
}
