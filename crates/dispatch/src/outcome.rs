use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;

/// Longest answer that is kept for whoever is told of it, in bytes.
pub const LONGEST_ANSWER: usize = 64 << 10;

/// What became of a delivery, for a dispatcher that is told of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Told {
    /// What the destination answered, where that has a number.
    pub status: Option<u16>,
    /// Its answer: as JSON if it is, or as a text.
    pub answer: Value,
    /// Why it was given up: a dead letter's reason.
    pub reason: Option<String>,
}

impl Told {
    /// It went well.
    pub fn done(status: Option<u16>, answer: &[u8]) -> Self {
        let text = || Value::String(String::from_utf8_lossy(answer).into_owned());
        let answer = match answer.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(answer).unwrap_or_else(|_| text()),
        };
        Self { status, answer, reason: None }
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
    pub(crate) fn put(&self, answer: &[u8]) {
        let answer = &answer[..answer.len().min(LONGEST_ANSWER)];
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = answer.to_vec();
    }

    /// What was put there.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
