//! Messages of serde about a value that does not fit, put into the words of the settings.
//!
//! Serde names Rust's types and shows the value, which may be a secret: neither is passed on.

use crate::names::looks_like_a_name;
use crate::section::nearest;

/// Replaces a text that could be a secret.
const NOT_SHOWN: &str = "(not shown)";

/// Bounds of Rust's integers, as serde names them.
const INTEGERS: [(&str, &str); 10] = [
    ("a nonzero u16", "a whole number from 1 to 65535"),
    ("a nonzero u32", "a whole number from 1 to 4294967295"),
    ("a nonzero u64", "a whole number from 1"),
    ("a nonzero usize", "a whole number from 1"),
    ("u8", "a whole number from 0 to 255"),
    ("u16", "a whole number from 0 to 65535"),
    ("u32", "a whole number from 0 to 4294967295"),
    ("u64", "a whole number from 0"),
    ("usize", "a whole number from 0"),
    ("f64", "a number"),
];

/// The other types that serde names in its own way.
const KINDS: [(&str, &str); 9] = [
    ("a string", "a text"),
    ("a boolean", "true or false"),
    ("path string", "a path, as a text"),
    ("a sequence", "a list"),
    ("a map", "a table of keys"),
    ("unit", "nothing"),
    ("string or map", "a name, or a table of one key"),
    ("map with a single key", "a table of one key"),
    ("variant identifier", "a name"),
];

/// A message with what was expected and what was found.
pub(crate) fn in_words(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("invalid type: ") {
        let (found, expected) = split(rest);
        return format!(
            "expected {}, found {}",
            kind_expected(expected),
            kind_found(found)
        );
    }
    for prefix in ["invalid value: ", "invalid length "] {
        if let Some(rest) = message.strip_prefix(prefix) {
            return format!("expected {}", kind_expected(split(rest).1));
        }
    }
    if let Some((variant, rest)) = message
        .strip_prefix("unknown variant `")
        .and_then(|rest| rest.split_once('`'))
    {
        return format!("unknown value `{}`{rest}", misspelt(variant, rest));
    }
    match message {
        "invalid socket address syntax" => {
            "expected an address and a port, such as 0.0.0.0:8080 or [::1]:8080; a name such as localhost is none"
        }
        "invalid IP address syntax" => "expected an address, such as 10.0.0.5 or ::1",
        _ if message.starts_with("data did not match any variant") => {
            "expected a value of another form: see the example of this key in the documentation"
        }
        _ => message,
    }
    .to_owned()
}

/// The found part and the expected part of a message. The value may itself contain `, expected `.
fn split(message: &str) -> (&str, &str) {
    message
        .rsplit_once(", expected ")
        .unwrap_or((message, "something else"))
}

fn kind_expected(expected: &str) -> &str {
    let known = INTEGERS
        .iter()
        .chain(&KINDS)
        .find(|(name, _)| *name == expected);
    match known {
        Some((_, words)) => words,
        None if expected.starts_with("struct ") => "a table of keys",
        None if expected.starts_with("tuple ") || expected.starts_with("a tuple ") => "a list",
        None if expected.starts_with("enum ") => "a name",
        None => expected,
    }
}

fn kind_found(found: &str) -> &'static str {
    match found.split([' ', ',']).next().unwrap_or_default() {
        "string" => "a text",
        "boolean" => "true or false",
        "integer" => "a whole number",
        "floating" => "a number with a fraction",
        "sequence" => "a list",
        "map" => "a table",
        "null" | "unit" | "Option" => "nothing",
        _ => "something else",
    }
}

/// The value as it was written, if it resembles one of the expected ones. Any other may be a
/// secret in the wrong place.
fn misspelt<'v>(value: &'v str, expected: &str) -> &'v str {
    let known = expected.split('`').skip(1).step_by(2);
    if nearest(value, known).is_some() {
        value
    } else {
        NOT_SHOWN
    }
}

/// The key as it was written, or a replacement if it could be a secret.
pub(crate) fn shortened(text: &str) -> String {
    if looks_like_a_name(text) {
        text.to_owned()
    } else {
        NOT_SHOWN.to_owned()
    }
}

#[cfg(test)]
mod tests;
