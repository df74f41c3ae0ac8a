//! Sampling of log lines that others can cause at will: one a minute, with the count of the rest.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time for which the first line stands for all that follow.
const EVERY: Duration = Duration::from_mins(1);

/// Decides which of many like lines is written.
///
/// ```
/// use fluent_queue::LineSampler;
///
/// let lines = LineSampler::default();
/// assert_eq!(lines.admit(), Some(0), "this one is written");
/// assert_eq!(lines.admit(), None, "this one is counted");
/// ```
#[derive(Debug, Default)]
pub struct LineSampler(Mutex<Sampled>);

#[derive(Debug, Default)]
struct Sampled {
    written: Option<Instant>,
    left_out: u64,
}

impl LineSampler {
    /// Returns the number of lines that were left out since the last, if this one is to be
    /// written: the first, and then one a minute.
    pub fn admit(&self) -> Option<u64> {
        let mut sampled = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sampled.admit(Instant::now())
    }
}

impl Sampled {
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self
            .written
            .is_some_and(|written| now.duration_since(written) < EVERY)
        {
            self.left_out += 1;
            return None;
        }
        self.written = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_tells_how_many_were_left_out() {
        let mut lines = Sampled::default();
        let begin = Instant::now();
        assert_eq!(lines.admit(begin), Some(0));
        for _ in 0..640 {
            assert_eq!(lines.admit(begin + EVERY - Duration::from_millis(1)), None);
        }
        assert_eq!(lines.admit(begin + EVERY), Some(640));
        assert_eq!(lines.admit(begin + EVERY), None);
    }
}
