//! The judgement, by the latest deliveries of one stream, whether this process's ring of keys is the
//! wrong one, or only lacks the key of some.

use std::time::Duration;

use tokio::time::Instant;

use crate::consuming::fetcher::BATCH;

/// Number of deliveries in a row that can't be verified after which the ring is taken for wrong.
const MANY: usize = BATCH / 2;

/// Most deliveries that are requested at once while the ring is taken for wrong.
const PROBE: usize = 16;

/// Time for which one delivery that was verified shows that the ring is not the wrong one: then
/// those of another key are put away, however many they are, and delay nobody.
const KNOWN_FOR: Duration = Duration::from_mins(1);

/// The latest deliveries of one stream.
#[derive(Debug, Default)]
pub(crate) struct UnknownKeys {
    in_a_row: usize,
    known_at: Option<Instant>,
}

impl UnknownKeys {
    /// Notes a delivery that was verified.
    pub(crate) fn note_known(&mut self) {
        self.in_a_row = 0;
        self.known_at = Some(Instant::now());
    }

    /// Notes one that could not be.
    pub(crate) fn note_unknown(&mut self) {
        self.in_a_row = self.in_a_row.saturating_add(1);
    }

    /// Whether the ring is taken for wrong, so that the rest is better left in the stream.
    pub(crate) fn are_all(&self) -> bool {
        self.in_a_row >= MANY
            && self
                .known_at
                .is_none_or(|known_at| known_at.elapsed() >= KNOWN_FOR)
    }

    /// Returns the most deliveries that are requested at once.
    pub(crate) fn most(&self) -> usize {
        match self.are_all() {
            true => PROBE,
            false => BATCH,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_ring_is_taken_for_wrong_where_nothing_was_verified_for_a_while() {
        let mut keys = UnknownKeys::default();
        let many = |keys: &mut UnknownKeys| (0..MANY).for_each(|_| keys.note_unknown());
        many(&mut keys);
        assert_eq!((keys.are_all(), keys.most()), (true, PROBE));
        keys.note_known();
        many(&mut keys);
        assert_eq!((keys.are_all(), keys.most()), (false, BATCH));
        tokio::time::advance(KNOWN_FOR).await;
        assert!(keys.are_all());
    }
}
