use std::sync::{Arc, Mutex, PoisonError};

use event_model::ExactValue;

/// Longest answer that is kept for whoever is told of it, in bytes.
pub const LONGEST_ANSWER: usize = 64 << 10;

/// What became of a delivery, for a dispatcher that is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Told {
    /// What the destination answered, where that has a number.
    pub status: Option<u16>,
    /// Its answer: as JSON if it is, with every key once, or as a text.
    pub answer: ExactValue,
    /// Why it was given up: a dead letter's reason.
    pub reason: Option<String>,
}

impl Told {
    /// It went well.
    pub fn done(status: Option<u16>, answer: &[u8]) -> Self {
        // Some servers write a byte order mark, which is no part of the text.
        let answer = answer.strip_prefix("\u{feff}".as_bytes()).unwrap_or(answer);
        let text = || ExactValue::Text(String::from_utf8_lossy(answer).into_owned());
        let answer = match answer.is_empty() {
            true => ExactValue::Null,
            false => ExactValue::parse(answer).unwrap_or_else(|_| text()),
        };
        Self { status, answer, reason: None }
    }

    /// Whether there is an answer that more can be read from than its text.
    pub fn has_readable_answer(&self) -> bool {
        !matches!(self.answer, ExactValue::Null | ExactValue::Text(_))
    }

    /// It was given up.
    pub fn given_up(reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), ..Self::default() }
    }
}

/// Where a dispatcher puts an answer that somebody is told of.
#[derive(Clone, Debug, Default)]
pub struct Keep(Arc<Mutex<Vec<u8>>>);

impl Keep {
    pub(crate) fn put(&self, answer: &[u8]) -> bool {
        let fits = answer.len() <= LONGEST_ANSWER;
        let kept = if fits { answer.to_vec() } else { Vec::new() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        fits
    }

    /// What was put there.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> ExactValue {
        ExactValue::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_answer_is_json_where_it_can_be_and_never_its_byte_order_mark() {
        for (answer, expected) in [
            (r#"{"id":1.10}"#, json(r#"{"id":1.10}"#)),
            ("\u{feff}{\"id\":1}", json(r#"{"id":1}"#)),
            ("\u{feff}ok", "ok".into()),
            ("\u{feff}", ExactValue::Null),
            ("", ExactValue::Null),
            (r#"{"id":1,"id":2}"#, r#"{"id":1,"id":2}"#.into()),
        ] {
            assert_eq!(Told::done(Some(200), answer.as_bytes()).answer, expected, "{answer:?}");
        }
    }
}
