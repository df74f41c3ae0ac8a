//! Gaps of the history: times in which the attempts of a route could not be recorded. They are
//! facts, one for each route, so that a history that has forgotten something says so.

use std::time::Duration;

use event_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::facts::json;
use crate::{FactStore, MARKED_FOR, Position, QueueError};

/// Word that the names of these facts begin with; the route follows.
const HISTORY_GAP: &str = "history-gap";

/// Most gaps that are kept for a route: the two that are closest to each other become one.
pub const MAX_HISTORY_GAPS: usize = 16;

/// Most tries to replace a fact that other processes replace, too.
const TRIES: usize = 8;

/// A time in which attempts of a route could not be recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryGap {
    /// Attempts that ended since this time may be missing.
    pub since: Timestamp,
    /// Attempts that ended after this time are recorded.
    pub until: Timestamp,
    /// The attempts that are missing; `None` as long as that is not known, and then any event may
    /// be concerned that was stored before the gap's end. It stays so if the process ended before
    /// it could record what it had in memory.
    pub lost: Option<LostAttempts>,
    /// The process that will say more of it; `None` if it is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
}

/// Attempts that are missing in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LostAttempts {
    /// Their number.
    pub count: u64,
    /// The lowest position of their events.
    pub first: Position,
    /// The highest position of their events.
    pub last: Position,
}

impl LostAttempts {
    /// One attempt, of the event at this position.
    pub fn one(position: Position) -> Self {
        Self {
            count: 1,
            first: position,
            last: position,
        }
    }

    /// Whether the event at this position may be one of theirs.
    pub fn may_have(&self, position: Position) -> bool {
        self.first <= position && position <= self.last
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }
}

impl HistoryGap {
    /// The time from the end of this gap to the beginning of the next.
    fn distance_to(&self, next: &Self) -> Duration {
        Duration::try_from(next.since.duration_since(self.until)).unwrap_or_default()
    }

    fn and(&self, next: &Self) -> Self {
        let lost = self.lost.zip(next.lost).map(|(one, other)| one.and(other));
        Self {
            since: self.since.min(next.since),
            until: self.until.max(next.until),
            lost,
            writer: None,
        }
    }
}

/// The gaps of every route, by the route's name.
pub async fn history_gaps(
    facts: &dyn FactStore,
) -> Result<Vec<(String, Vec<HistoryGap>)>, QueueError> {
    let all = facts.entries(HISTORY_GAP).await?;
    let read = all.into_iter().filter_map(|fact| {
        let route = fact.name.strip_prefix(HISTORY_GAP)?.strip_prefix('.')?;
        Some((route.to_owned(), gaps_of(&fact.value)?))
    });
    Ok(read.collect())
}

/// Records what `writer` knows of its gap in the history of `route`, in place of what it said
/// before; `None` if nothing is missing after all.
pub async fn note_history_gap(
    facts: &dyn FactStore,
    route: &str,
    writer: &str,
    gap: Option<&HistoryGap>,
) -> Result<(), QueueError> {
    let is_unfinished = |known: &HistoryGap| known.writer.as_deref() == Some(writer);
    change(facts, route, |gaps| {
        let mut changed: Vec<_> = gaps
            .iter()
            .filter(|known| !is_unfinished(known))
            .cloned()
            .collect();
        changed.extend(gap.cloned());
        bounded(changed)
    })
    .await
}

/// Removes gaps that ended before `begins`, since when the history is kept: it says that itself.
/// What stays is stored for another [`MARKED_FOR`], once half of that is over.
pub async fn forget_history_gaps(
    facts: &dyn FactStore,
    begins: Timestamp,
    now: Timestamp,
) -> Result<(), QueueError> {
    for fact in facts.entries(HISTORY_GAP).await? {
        let Some(route) = fact
            .name
            .strip_prefix(HISTORY_GAP)
            .and_then(|rest| rest.strip_prefix('.'))
        else {
            continue;
        };
        let gaps = gaps_of(&fact.value).unwrap_or_default();
        let is_over = gaps.iter().any(|gap| gap.until < begins);
        let age = Duration::try_from(now.duration_since(fact.set_at)).unwrap_or_default();
        // An empty list is left to expire: whoever may write facts may not remove them.
        let expires = !gaps.is_empty() && age > MARKED_FOR / 2;
        if is_over || expires {
            let kept = |gaps: &[HistoryGap]| {
                gaps.iter()
                    .filter(|gap| gap.until >= begins)
                    .cloned()
                    .collect()
            };
            change(facts, route, kept).await?;
        }
    }
    Ok(())
}

async fn change(
    facts: &dyn FactStore,
    route: &str,
    changed: impl Fn(&[HistoryGap]) -> Vec<HistoryGap>,
) -> Result<(), QueueError> {
    let name = format!("{HISTORY_GAP}.{route}");
    for _ in 0..TRIES {
        let (value, version) = facts.get_versioned(&name).await?.unwrap_or_default();
        let gaps = changed(&gaps_of(&value).unwrap_or_default());
        if (gaps.is_empty() && version == 0)
            || facts.compare_and_set(&name, json(&gaps), version).await?
        {
            return Ok(());
        }
    }
    Err(QueueError::unavailable(
        "noting a gap of the history",
        "other processes write it all the time",
    ))
}

/// Reads the gaps of a fact. One that can't be read was written by another version.
fn gaps_of(value: &[u8]) -> Option<Vec<HistoryGap>> {
    serde_json::from_slice(value).ok()
}

/// Joins gaps until there are no more than [`MAX_HISTORY_GAPS`].
fn bounded(mut gaps: Vec<HistoryGap>) -> Vec<HistoryGap> {
    gaps.sort_by_key(|gap| gap.since);
    while gaps.len() > MAX_HISTORY_GAPS {
        let pairs = gaps.windows(2).enumerate();
        let closest = pairs.min_by_key(|(_, pair)| pair[0].distance_to(&pair[1]));
        let Some((place, _)) = closest else { break };
        let next = gaps.remove(place + 1);
        gaps[place] = gaps[place].and(&next);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(since: i64, until: i64, lost: Option<(u64, u64)>) -> HistoryGap {
        let position = |sequence| Position::from_packed(sequence).unwrap();
        HistoryGap {
            since: Timestamp::from_second(since).unwrap(),
            until: Timestamp::from_second(until).unwrap(),
            lost: lost.map(|(first, last)| LostAttempts {
                count: 1,
                first: position(first),
                last: position(last),
            }),
            writer: None,
        }
    }

    #[test]
    fn the_closest_of_too_many_gaps_become_one_and_none_is_lost() {
        let mut gaps: Vec<_> = (0..MAX_HISTORY_GAPS as i64)
            .map(|number| gap(number * 100, number * 100 + 1, Some((1, 2))))
            .collect();
        gaps.push(gap(310, 320, Some((8, 9))));
        let kept = bounded(gaps);
        assert_eq!(kept.len(), MAX_HISTORY_GAPS);
        let joined = kept
            .iter()
            .find(|gap| gap.since == Timestamp::from_second(300).unwrap())
            .unwrap();
        assert_eq!(joined.until, Timestamp::from_second(320).unwrap());
        let lost = joined.lost.unwrap();
        assert!(!lost.may_have(Position::START) && lost.may_have(lost.last));
        assert_eq!(
            (lost.count, lost.first.packed(), lost.last.packed()),
            (2, 1, 9)
        );
    }
}
