//! What an answer of Fluent says beside its data: how long to wait, and the code of an error.

use std::time::Duration;

use http::header::HeaderMap;
use http_client::retry_after;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

/// Shortest pause, also if a `Retry-After` asks for 0.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause, whatever a `Retry-After` asks for.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_mins(10);

/// Returns how long an answer asks to wait, within our bounds.
pub(crate) fn asked_to_wait(headers: &HeaderMap) -> Option<Duration> {
    let wait = retry_after(headers, None)?;
    Some(wait.clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
}

/// Classes of errors that say that the query itself is wrong, as the library has them with which
/// Fluent answers GraphQL.
const OF_THE_QUERY: [&str; 3] = ["InvalidSyntax", "ValidationError", "OperationNotSupported"];

/// One of the errors in an answer.
#[derive(Debug, Default)]
pub(crate) struct AnswerError {
    /// Its code, if that is a text.
    pub(crate) code: Option<String>,
    /// Whether it says that the query is wrong, and not that it could not be answered.
    pub(crate) is_of_query: bool,
}

/// Returns the errors in an answer, as GraphQL has them. Whatever one of them contains, the
/// others are read.
pub(crate) fn errors_in(body: &[u8]) -> Vec<AnswerError> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Box<RawValue>>,
    }
    let errors = serde_json::from_slice(body).map_or(Vec::new(), |it: Errors| it.errors);
    errors.iter().map(|error| AnswerError::of(error)).collect()
}

impl AnswerError {
    fn of(error: &RawValue) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Fields {
            extensions: Option<Box<RawValue>>,
            code: Option<Box<RawValue>>,
            path: Option<Box<RawValue>>,
            locations: Option<Box<RawValue>>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Extensions {
            code: Option<Box<RawValue>>,
            classification: Option<Box<RawValue>>,
        }
        let Fields {
            extensions,
            code,
            path,
            locations,
        } = serde_json::from_str(error.get()).unwrap_or_default();
        let extensions = extensions.and_then(|it| serde_json::from_str(it.get()).ok());
        let extensions: Extensions = extensions.unwrap_or_default();
        let is_of_query = match text(extensions.classification) {
            Some(class) => OF_THE_QUERY.contains(&&*class),
            // A place in the query, and none in an answer: it was never executed.
            None => !has_any(path) && has_any(locations),
        };
        Self {
            code: text(extensions.code).or(text(code)),
            is_of_query,
        }
    }
}

/// Whether it is a list with something in it.
fn has_any(value: Option<Box<RawValue>>) -> bool {
    let list: Option<Vec<IgnoredAny>> =
        value.and_then(|value| serde_json::from_str(value.get()).ok());
    list.is_some_and(|list| !list.is_empty())
}

fn text(value: Option<Box<RawValue>>) -> Option<String> {
    serde_json::from_str(value?.get()).ok()
}

#[cfg(test)]
mod tests {
    use http::header::RETRY_AFTER;

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
            let headers = [(RETRY_AFTER, text.parse().unwrap())].into_iter().collect();
            assert_eq!(
                asked_to_wait(&headers),
                expected.map(Duration::from_secs),
                "{text}"
            );
        }
    }
}
