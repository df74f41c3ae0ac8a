//! Ids that an action affected, as ranges.

use std::fmt::Write;

/// Most ranges of what was changed: as many as ids may be named in a call, so that the line has
/// each of them. Ids that a filter selects mostly follow each other.
const MAX_RANGES: usize = 10_000;

/// Most ranges of what a caller has only named: with invented ids of twenty digits, a few hundred
/// calls would push everything else out of the log.
const FEW: usize = 100;

/// Ids as `1-3, 7`, in the order in which they were added.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    ranges: Vec<(u64, u64)>,
    most: usize,
    /// The number of ids beyond the bound.
    more: u64,
}

impl Default for Ranges {
    fn default() -> Self {
        Self::of_at_most(MAX_RANGES)
    }
}

impl Ranges {
    fn of_at_most(most: usize) -> Self {
        Self {
            ranges: Vec::new(),
            most,
            more: 0,
        }
    }

    /// The first of these ids, and the number of the others.
    pub(crate) fn few(ids: impl IntoIterator<Item = u64>) -> Self {
        let mut ranges = Self::of_at_most(FEW);
        ids.into_iter().for_each(|id| ranges.add(id));
        ranges
    }

    pub(crate) fn add(&mut self, id: u64) {
        let is_full = self.ranges.len() >= self.most;
        match self.ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(id) => *last = id,
            _ if is_full => self.more += 1,
            _ => self.ranges.push((id, id)),
        }
    }

    /// Notes ids that are not among the ranges.
    pub(crate) fn leave_out(&mut self, ids: u64) {
        self.more += ids;
    }

    /// The ranges as text, empty if there are none.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (first, last) in &self.ranges {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = match first == last {
                true => write!(text, "{comma}{first}"),
                false => write!(text, "{comma}{first}-{last}"),
            };
        }
        if self.more > 0 {
            let _ = write!(text, ", and {} more", self.more);
        }
        text
    }
}

impl FromIterator<(u64, u64)> for Ranges {
    /// Takes whole ranges, in order. Two that follow each other are one.
    fn from_iter<I: IntoIterator<Item = (u64, u64)>>(ranges: I) -> Self {
        let mut all = Self::default();
        for (first, last) in ranges {
            all.add(first);
            if let Some((_, end)) = all.ranges.last_mut().filter(|(_, end)| *end == first) {
                *end = last;
            }
        }
        all
    }
}

impl FromIterator<u64> for Ranges {
    fn from_iter<I: IntoIterator<Item = u64>>(ids: I) -> Self {
        let mut ranges = Self::default();
        ids.into_iter().for_each(|id| ranges.add(id));
        ranges
    }
}

/// Ids of successes, and the first ones of failures: what failed was not changed, and may not exist.
#[derive(Clone, Debug)]
pub(crate) struct AffectedItems {
    pub(crate) done: Ranges,
    pub(crate) failed: Ranges,
}

impl Default for AffectedItems {
    fn default() -> Self {
        Self {
            done: Ranges::default(),
            failed: Ranges::few([]),
        }
    }
}

impl AffectedItems {
    /// Notes the result for one id.
    pub(crate) fn note(&mut self, id: u64, is_done: bool) {
        if is_done {
            self.done.add(id)
        } else {
            self.failed.add(id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_lie_together_are_ranges() {
        let text = |ids: &[u64]| ids.iter().copied().collect::<Ranges>().text();
        assert_eq!(text(&[]), "");
        assert_eq!(text(&[1, 2, 3, 7, 9, 10]), "1-3, 7, 9-10");
        assert_eq!(text(&[3, 2, 2, u64::MAX]), "3, 2, 2, 18446744073709551615");
    }

    #[test]
    fn what_only_failed_has_a_few_ids_and_a_count() {
        let mut ids = AffectedItems::default();
        for id in 0..10_000_u64 {
            ids.note(u64::MAX - id * 2, false);
            ids.note(id * 2, true);
        }
        let failed = ids.failed.text();
        assert!(
            failed.len() < 4 << 10 && failed.ends_with(", and 9900 more"),
            "{failed}"
        );
        assert_eq!(ids.done.text().split(", ").count(), 10_000);
    }

    #[test]
    fn a_line_is_bounded_and_has_all_that_one_call_may_name() {
        let scattered = |many: u64| (0..many).map(|id| id * 2).collect::<Ranges>().text();
        let all = scattered(crate::letters::MAX_IDS as u64);
        assert_eq!(all.split(", ").count(), crate::letters::MAX_IDS);
        assert!(scattered(1_000_000).len() < 256 << 10);
        assert!(scattered(10_005).ends_with(", and 5 more"));
    }
}
