//! Messages of serde about a value that does not fit, put into the words of the settings.
//!
//! Serde names Rust's types and shows the value, which may be a secret: neither is passed on.

use serde_json::Value;

use crate::expectation;
use crate::names::looks_like_a_name;
use crate::section::nearest;

/// Replaces a text that could be a secret.
const NOT_SHOWN: &str = "(not shown)";

/// Most digits of a number that is repeated where a text with a unit was expected: a longer one
/// may be a secret.
const MAX_DIGITS: usize = 4;

/// Least letters of a value that are taken for the beginning of a known name, as in `prod`.
const LEAST_BEGINNING: usize = 3;

/// A value that could not be read: what serde says, and what there is and should be.
pub(crate) struct WrongValue<'m> {
    pub(crate) message: &'m str,
    /// The schema of the value, if it is known.
    pub(crate) schema: Option<&'m Value>,
    /// The value, if there is one.
    pub(crate) found: Option<&'m Value>,
}

impl WrongValue<'_> {
    /// What was expected, and what was found.
    pub(crate) fn in_words(&self) -> String {
        let message = self.message;
        if message.starts_with("invalid type: ") {
            return self.expected_and_found();
        }
        if let Some((value, listed)) = message
            .strip_prefix("unknown variant `")
            .and_then(|rest| rest.split_once('`'))
        {
            return unknown_name(value, listed);
        }
        let is_of_serde = [
            "invalid value: ",
            "invalid length ",
            "data did not match any",
        ]
        .iter()
        .any(|prefix| message.starts_with(prefix));
        match message {
            "invalid socket address syntax" => self.no_listen_address(),
            "invalid IP address syntax" => "expected an address such as 10.0.0.5".to_owned(),
            _ if is_of_serde => match stated(message) {
                Some(expected) => format!("expected {expected}"),
                None => format!("expected {}", self.expected()),
            },
            _ => message.to_owned(),
        }
    }

    fn expected(&self) -> String {
        match self.schema {
            Some(schema) => expectation::describe(schema),
            None => "another value: see the example of this key in the documentation".to_owned(),
        }
    }

    fn expected_and_found(&self) -> String {
        let expected = stated(self.message).unwrap_or_else(|| self.expected());
        match self.found {
            Some(found) => format!("expected {expected}, found {}", self.found_in_words(found)),
            None => format!("expected {expected}"),
        }
    }

    fn found_in_words(&self, found: &Value) -> String {
        match found {
            Value::Null => "nothing".to_owned(),
            Value::Bool(is_true) => format!("`{is_true}`"),
            Value::Number(number) => match self.is_shown(&number.to_string()) {
                true => format!("the number {number}"),
                false => "a number".to_owned(),
            },
            Value::String(_) => "a text".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "a table".to_owned(),
        }
    }

    /// Whether a number may be repeated: it lacks the unit of a length of time or of a size.
    fn is_shown(&self, number: &str) -> bool {
        let title = self.schema.and_then(|schema| schema["title"].as_str());
        let has_unit = matches!(title, Some("a duration" | "a size"));
        let is_short = number.len() <= MAX_DIGITS && number.bytes().all(|b| b.is_ascii_digit());
        has_unit && is_short
    }

    fn no_listen_address(&self) -> String {
        let expected = "expected an address and a port such as 127.0.0.1:8080";
        let written = self.found.and_then(Value::as_str).unwrap_or_default();
        let port = |text: &str| text.parse::<u16>().is_ok();
        let hint = match written.rsplit_once(':') {
            Some(("localhost", digits)) if port(digits) => {
                format!("; `localhost` is a name: write 127.0.0.1:{digits}")
            }
            Some(("" | "*", digits)) if port(digits) => {
                format!("; for every address of this machine write 0.0.0.0:{digits}")
            }
            None if written.parse::<std::net::Ipv4Addr>().is_ok() => {
                format!("; the port is missing: {written}:8080")
            }
            None if port(written) => {
                format!("; the address is missing: write 127.0.0.1:{written} for this machine only")
            }
            _ => String::new(),
        };
        format!("{expected}{hint}")
    }
}

/// How texts of serde begin that name Rust's types.
const OF_SERDE: [&str; 25] = [
    "a string",
    "a map",
    "a sequence",
    "a boolean",
    "a nonzero",
    "a character",
    "a byte",
    "a borrowed",
    "a tuple",
    "an array",
    "an OS",
    "any ",
    "enum ",
    "field ",
    "i",
    "IP",
    "map ",
    "newtype",
    "path string",
    "socket",
    "string ",
    "struct ",
    "tuple",
    "unit",
    "variant",
];

/// What a reader of ours expected, in its own words. Serde's own name Rust's types.
fn stated(message: &str) -> Option<String> {
    let (_, expected) = message.rsplit_once(", expected ")?;
    let is_ours = expected.contains(' ') && !OF_SERDE.iter().any(|of| expected.starts_with(of));
    is_ours.then(|| expected.to_owned())
}

/// Serde lists the known ones: "expected one of `a`, `b`".
fn unknown_name(value: &str, listed: &str) -> String {
    let known = || listed.split('`').skip(1).step_by(2);
    let all: Vec<_> = known().collect();
    let expected = match &all[..] {
        [one] => format!("`{one}`"),
        _ => format!("one of `{}`", all.join("`, `")),
    };
    let begun = || {
        let is_begun = |name: &&str| value.len() >= LEAST_BEGINNING && name.starts_with(value);
        known().find(is_begun)
    };
    match nearest(value, known()).or_else(begun) {
        Some(name) => {
            format!("unknown value `{value}`, expected {expected}; did you mean `{name}`?")
        }
        None => format!("unknown value {NOT_SHOWN}, expected {expected}"),
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
