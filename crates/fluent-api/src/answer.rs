//! What an answer of Fluent says beside its data: how long to wait, and the code of an error.

use std::time::Duration;

use http::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;

/// Shortest pause, also if a `Retry-After` asks for 0.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause, whatever a `Retry-After` asks for.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// Returns how long an answer asks to wait, within our bounds.
pub(crate) fn asked_to_wait(headers: &HeaderMap) -> Option<Duration> {
    asked_in_seconds(headers.get(RETRY_AFTER)?.to_str().ok()?)
}

/// Reads a number of seconds, also with the fractions and the huge values that some servers
/// write.
fn asked_in_seconds(text: &str) -> Option<Duration> {
    let is_number = text.trim().starts_with(|c: char| c.is_ascii_digit());
    let seconds = text.trim().parse::<f64>().ok().filter(|_| is_number)?;
    let wait = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_PAUSE);
    Some(wait.clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
}

/// Returns the code of the first error in an answer, as GraphQL has it.
pub(crate) fn code_in(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Error>,
    }
    #[derive(Deserialize)]
    struct Error {
        extensions: Option<Extensions>,
        code: Option<String>,
    }
    #[derive(Deserialize)]
    struct Extensions {
        code: Option<String>,
    }
    let errors: Errors = serde_json::from_slice(body).ok()?;
    errors
        .errors
        .into_iter()
        .find_map(|error| error.extensions.and_then(|more| more.code).or(error.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_bounded_whatever_is_asked() {
        for (text, expected) in [
            ("30", Some(30)),
            ("0", Some(1)),
            ("1.0", Some(1)),
            ("3e1", Some(30)),
            ("99999999999999999999999", Some(600)),
            ("1e999", Some(600)),
            ("-5", None),
            ("soon", None),
            ("nan", None),
        ] {
            assert_eq!(
                asked_in_seconds(text),
                expected.map(Duration::from_secs),
                "{text}"
            );
        }
    }
}
