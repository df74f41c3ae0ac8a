//! Record of the hours in which each kind of event came, to notice a kind that came every day at
//! this time and does not come today.
//!
//! Each process that accepts webhooks has a record of its own, and writes it as a fact, under a
//! new name after each start: it need not read what others know. Merged, they say what came.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use event_model::{Bytes, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Fact, FactStore, QueueError};

/// Number of hours remembered: eight days.
const HOURS: i64 = 192;

/// Number of days before today, on each of which a kind must have come to be missed.
const DAYS: i64 = 7;

/// Largest number of kinds that one process remembers: Fluent's rules choose their names, so
/// there is no other bound.
pub const MOST_KINDS: usize = 500;

/// Hours without any event, after which a kind that comes daily at varying times is missed too.
const AT_LEAST_DAILY: i64 = 25;

/// A kind of event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventKind {
    /// The account's environment.
    pub environment: String,
    /// The account.
    pub account: String,
    /// The event's name.
    pub name: String,
}

/// The hours in which something came: a bit for each, the lowest for the newest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenHours {
    /// The newest hour, counted from 1970.
    newest: i64,
    bits: [u64; 3],
}

impl SeenHours {
    fn has(&self, hour: i64) -> bool {
        let back = self.newest - hour;
        (0..HOURS).contains(&back) && self.bits[(back / 64) as usize] >> (back % 64) & 1 == 1
    }

    fn set(&mut self, hour: i64) {
        if hour > self.newest {
            *self = self.moved_to(hour);
        }
        let back = self.newest - hour;
        if (0..HOURS).contains(&back) {
            self.bits[(back / 64) as usize] |= 1 << (back % 64);
        }
    }

    /// Returns the record with another newest hour.
    fn moved_to(&self, newest: i64) -> Self {
        let mut moved = Self {
            newest,
            bits: [0; 3],
        };
        let still_there = newest.saturating_sub(HOURS)..=self.newest;
        for hour in still_there.filter(|hour| self.has(*hour)) {
            let back = newest - hour;
            if (0..HOURS).contains(&back) {
                moved.bits[(back / 64) as usize] |= 1 << (back % 64);
            }
        }
        moved
    }

    fn merged(self, other: Self) -> Self {
        let newest = self.newest.max(other.newest);
        let mut one = self.moved_to(newest);
        let other = other.moved_to(newest);
        for (bits, more) in one.bits.iter_mut().zip(other.bits) {
            *bits |= more;
        }
        one
    }

    /// Whether a kind that came on each of the seven days (UTC) before is missing now: either in
    /// the hour in which it came on each of them, or for more than a day.
    fn is_silent(&self, now: i64) -> bool {
        let today = now.div_euclid(24) * 24;
        let came_on = |day: i64| (0..24).any(|hour| self.has(today - day * 24 + hour));
        if !(1..=DAYS).all(came_on) {
            return false;
        }
        // The last whole hour, and the current one.
        let last = now - 1;
        let came_now = self.has(last) || self.has(now);
        let came_then = |day: i64| self.has(last - day * 24);
        let is_missed_now = !came_now && (1..=DAYS).all(came_then);
        is_missed_now || (0..AT_LEAST_DAILY).all(|back| !self.has(now - back))
    }
}

/// Record of the kinds that one process has seen, or several together.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SeenEvents {
    kinds: Vec<(EventKind, SeenHours, Timestamp)>,
    /// Index of a kind in `kinds`, by its digest.
    #[serde(skip)]
    index: HashMap<u64, usize>,
    /// Keyed with a secret of the process, so that nobody can choose names with equal digests.
    #[serde(skip)]
    hashing: RandomState,
}

impl PartialEq for SeenEvents {
    fn eq(&self, other: &Self) -> bool {
        self.kinds == other.kinds
    }
}

impl SeenEvents {
    /// Records an event. A new kind beyond [`MOST_KINDS`] is not remembered.
    pub fn note(&mut self, environment: &str, account: &str, name: &str, at: Timestamp) {
        // Every event pays for this: a digest is cheaper than three texts.
        let digest = self.digest(environment, account, name);
        if let Some((_, hours, last_at)) = self
            .index
            .get(&digest)
            .and_then(|index| self.kinds.get_mut(*index))
        {
            hours.set(hour(at));
            *last_at = (*last_at).max(at);
            return;
        }
        let environment = environment.to_owned();
        let account = account.to_owned();
        let name = name.to_owned();
        let kind = EventKind {
            environment,
            account,
            name,
        };
        let mut hours = SeenHours {
            newest: hour(at),
            bits: [0; 3],
        };
        hours.set(hour(at));
        self.add(kind, hours, at);
    }

    fn digest(&self, environment: &str, account: &str, name: &str) -> u64 {
        self.hashing.hash_one((environment, account, name))
    }

    fn add(&mut self, kind: EventKind, hours: SeenHours, last_at: Timestamp) {
        let digest = self.digest(&kind.environment, &kind.account, &kind.name);
        let known = self
            .index
            .get(&digest)
            .and_then(|index| self.kinds.get_mut(*index));
        if let Some((_, known, last)) = known {
            (*known, *last) = (known.merged(hours), (*last).max(last_at));
        } else if self.kinds.len() < MOST_KINDS {
            self.index.insert(digest, self.kinds.len());
            self.kinds.push((kind, hours, last_at));
        }
    }

    /// Adds the record of another process.
    pub fn merge(&mut self, other: Self) {
        for (kind, hours, last_at) in other.kinds {
            self.add(kind, hours, last_at);
        }
    }

    /// The accounts of the kinds; an account may come more than once.
    pub fn accounts(&self) -> impl Iterator<Item = &str> {
        self.kinds.iter().map(|(kind, ..)| kind.account.as_str())
    }

    /// Kinds that came on each of the seven days before and are missing now, with the time of the
    /// last event.
    pub fn silent(&self, now: Timestamp) -> Vec<(EventKind, Timestamp)> {
        let silent = self
            .kinds
            .iter()
            .filter(|(_, hours, _)| hours.is_silent(hour(now)));
        silent
            .map(|(kind, _, last_at)| (kind.clone(), *last_at))
            .collect()
    }
}

fn hour(at: Timestamp) -> i64 {
    at.as_second().div_euclid(3600)
}

/// Writes the record of the process with this id.
pub async fn set_seen(
    facts: &dyn FactStore,
    id: &str,
    seen: &SeenEvents,
) -> Result<(), QueueError> {
    let value: Bytes = serde_json::to_vec(seen).unwrap_or_default().into();
    facts.set(&format!("seen.{id}"), value).await
}

/// Forgets records that are so old that they say nothing any more.
pub async fn forget_old_seen(facts: &dyn FactStore) -> Result<(), QueueError> {
    let now = facts.now().await?;
    for entry in facts.entries("seen").await? {
        if now.duration_since(entry.set_at).as_hours() > HOURS {
            facts.unset(&entry.name).await?;
        }
    }
    Ok(())
}

/// The merged record of all processes.
pub async fn seen_by_all(facts: &dyn FactStore) -> Result<SeenEvents, QueueError> {
    let mut all = SeenEvents::default();
    for Fact { value, .. } in facts.entries("seen").await? {
        all.merge(read(&value));
    }
    Ok(all)
}

/// Reads a record; one of another version that can't be read counts as empty.
fn read(value: &[u8]) -> SeenEvents {
    let mut whole = SeenEvents::default();
    whole.merge(serde_json::from_slice(value).unwrap_or_default());
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64, hour: i64) -> Timestamp {
        Timestamp::from_second((20_000 + day) * 86_400 + hour * 3600 + 600).expect("a time")
    }

    /// Checks whether a kind that came at these hours of each day, from the first on, is missed
    /// at `now`.
    #[track_caller]
    fn check(hours: &[i64], days: i64, now: (i64, i64), expected: bool) {
        let mut seen = SeenEvents::default();
        for day in 0..days {
            for hour in hours {
                seen.note("sandbox", "ACME", "E", at(day, *hour));
            }
        }
        let silent = seen.silent(at(now.0, now.1));
        assert_eq!(
            silent.len(),
            usize::from(expected),
            "{hours:?} on {days} days, at {now:?}"
        );
    }

    #[test]
    fn what_comes_each_night_is_missed_in_the_morning_and_not_before() {
        check(&[2], 7, (7, 1), false);
        check(&[2], 7, (7, 2), false);
        check(&[2], 7, (7, 3), true);
        check(&[2], 8, (7, 3), false);
    }

    #[test]
    fn what_comes_all_day_is_missed_after_an_hour() {
        let all: Vec<i64> = (0..24).collect();
        check(&all, 7, (6, 23), false);
        check(&all, 7, (7, 0), false);
        check(&all, 7, (7, 1), true);
    }

    #[test]
    fn what_did_not_come_on_each_day_is_not_missed() {
        check(&[2], 6, (7, 3), false);
        check(&[2], 7, (9, 3), false);
        let mut seen = SeenEvents::default();
        for (day, hour) in [(0, 1), (1, 22), (2, 9), (3, 4), (4, 17), (5, 12), (6, 8)] {
            seen.note("sandbox", "ACME", "E", at(day, hour));
        }
        assert!(seen.silent(at(7, 7)).is_empty(), "now and then, once a day");
        assert_eq!(seen.silent(at(7, 10)).len(), 1, "for more than a day");
    }

    #[test]
    fn processes_together_have_seen_what_each_did_and_a_restart_forgets_nothing() {
        let mut one = SeenEvents::default();
        let mut other = SeenEvents::default();
        for day in 0..7 {
            let seen = if day % 2 == 0 { &mut one } else { &mut other };
            seen.note("sandbox", "ACME", "E", at(day, 2));
        }
        let written = serde_json::to_vec(&other).expect("JSON");
        one.merge(read(&written));
        assert_eq!(one.silent(at(7, 3)).len(), 1);
        one.note("sandbox", "ACME", "E", at(7, 2));
        assert!(one.silent(at(7, 3)).is_empty());
        // A clock that jumps ahead and back loses nothing.
        one.note("sandbox", "ACME", "E", at(400, 2));
        one.note("sandbox", "ACME", "E", at(8, 2));
        assert!(one.silent(at(8, 3)).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = SeenEvents::default();
        for number in 0..MOST_KINDS * 2 {
            seen.note("sandbox", "ACME", &format!("E{number}"), at(0, 0));
        }
        assert_eq!(seen.kinds.len(), MOST_KINDS);
    }
}
