//! The outcome of a delivery, for dispatchers that are notified of it.

use std::sync::{Arc, Mutex, PoisonError};

use event_model::ExactValue;

/// Longest answer that is handed on in a notification, in bytes.
pub const LONGEST_ANSWER: usize = 64 << 10;

/// Outcome of a delivery, for a dispatcher that is notified of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeliveryOutcome {
    /// Status of the destination's answer, if it has one.
    pub status: Option<u16>,
    /// The destination's answer: as JSON if it is that, with every key once, or as a text.
    pub answer: ExactValue,
    /// Reason of the dead letter, if it became one.
    pub reason: Option<String>,
}

impl DeliveryOutcome {
    /// Makes the outcome of a delivery that succeeded.
    pub fn done(status: Option<u16>, answer: &[u8]) -> Self {
        // Some servers write a byte order mark, which is no part of the text.
        let answer = answer.strip_prefix("\u{feff}".as_bytes()).unwrap_or(answer);
        let text = || ExactValue::Text(String::from_utf8_lossy(answer).into_owned());
        let answer = match answer.is_empty() {
            true => ExactValue::Null,
            false => ExactValue::parse(answer).unwrap_or_else(|_| text()),
        };
        Self {
            status,
            answer,
            reason: None,
        }
    }

    /// Makes the outcome of a delivery that became a dead letter for this reason.
    pub fn dead_letter(reason: &str) -> Self {
        Self {
            reason: Some(reason.to_owned()),
            ..Self::default()
        }
    }
}

/// Holder for an answer of which a hook is notified.
#[derive(Clone, Debug, Default)]
pub struct ResponseCapture(Arc<Mutex<Vec<u8>>>);

impl ResponseCapture {
    pub(crate) fn put(&self, answer: &[u8]) -> bool {
        let fits = answer.len() <= LONGEST_ANSWER;
        let kept = if fits { answer.to_vec() } else { Vec::new() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        fits
    }

    /// Takes the answer out.
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
            assert_eq!(
                DeliveryOutcome::done(Some(200), answer.as_bytes()).answer,
                expected,
                "{answer:?}"
            );
        }
    }
}
