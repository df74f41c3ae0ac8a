//! What became of each item of a job, in parts of a bounded size.

use serde::{Deserialize, Serialize};

/// Most failures of a job that are kept one by one, and most ranges of successes.
pub(crate) const MAX_KEPT: u32 = 10_000;

/// Most failures and ranges in one part of a log. A part is a fact, and is written anew with each
/// page of items.
const MAX_PART: usize = 500;

/// Most bytes of the words of one failure.
const MAX_WORDS: usize = 200;

/// What became of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ItemResult {
    /// Done as asked.
    Done,
    /// Left out: there was nothing to do, or somebody else did it.
    Skipped,
    /// Left out: what became of it before is no longer kept.
    Unknown,
    /// It stays as it was.
    Failed(String),
}

/// A part of the log of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ItemLog {
    /// Ranges of items that were done, from the first to the last.
    pub(crate) done: Vec<(u64, u64)>,
    /// Items that failed, with the reason.
    pub(crate) failed: Vec<(u64, String)>,
}

/// Places that the whole log of a job has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kept {
    pub(crate) failures: u32,
    pub(crate) ranges: u32,
}

impl ItemLog {
    /// Notes a result, if there is a place left for it.
    pub(crate) fn note(&mut self, id: u64, result: &ItemResult, kept: &mut Kept) {
        match result {
            ItemResult::Done => match self.done.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(id) => *last = id,
                _ if kept.ranges < MAX_KEPT => {
                    kept.ranges += 1;
                    self.done.push((id, id));
                }
                _ => {}
            },
            ItemResult::Failed(why) if kept.failures < MAX_KEPT => {
                kept.failures += 1;
                self.failed.push((id, shortened(why).to_owned()));
            }
            ItemResult::Failed(_) | ItemResult::Skipped | ItemResult::Unknown => {}
        }
    }

    /// The number of items in its ranges.
    pub(crate) fn items_done(&self) -> u64 {
        self.done.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// True if the next results should go into another part.
    pub(crate) fn is_full(&self) -> bool {
        self.done.len() + self.failed.len() >= MAX_PART
    }
}

/// The beginning of a text.
pub(crate) fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_WORDS)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_that_follow_each_other_are_one_range_and_failures_are_kept_one_by_one() {
        let mut log = ItemLog::default();
        let mut kept = Kept::default();
        let failed = ItemResult::Failed("no such route".to_owned());
        let results = [
            (1, ItemResult::Done),
            (2, ItemResult::Done),
            (3, ItemResult::Skipped),
            (4, failed),
            (5, ItemResult::Done),
        ];
        for (id, result) in results {
            log.note(id, &result, &mut kept);
        }
        assert_eq!(log.done, [(1, 2), (5, 5)]);
        assert_eq!(log.failed, [(4, "no such route".to_owned())]);
        assert_eq!((kept.ranges, kept.failures, log.items_done()), (2, 1, 3));
    }

    #[test]
    fn a_log_is_bounded_in_places_and_in_words() {
        let mut log = ItemLog::default();
        let mut kept = Kept {
            failures: MAX_KEPT - 1,
            ranges: MAX_KEPT,
        };
        let long = ItemResult::Failed("ö".repeat(1000));
        for id in 0..3 {
            log.note(id, &long, &mut kept);
            log.note(id, &ItemResult::Done, &mut kept);
        }
        assert_eq!(log.failed.len(), 1);
        assert_eq!(log.failed[0].1.len(), MAX_WORDS);
        assert_eq!(log.done, []);
        assert!(!log.is_full());
        let mut kept = Kept::default();
        for id in 0..MAX_PART as u64 {
            log.note(id * 2, &ItemResult::Done, &mut kept);
        }
        assert!(log.is_full());
    }
}
