//! One event of Fluent's that came twice, with different bodies: a route may want one of them.
//!
//! Which of them a route attempts or has delivered is a mark for each route and event. It names
//! the event that set it, which is therefore never kept back by it, however often it comes again.
//! A claim ends by itself: whoever made it may be gone.

use std::time::Duration;

use event_model::{EventId, FluentKey, Timestamp};

use crate::{Marks, QueueError};

/// How many of the newest of these marks a queue keeps at least, in all: those before go, as
/// they do when its window for duplicates is over.
pub const SAME_IDS_KEPT: u64 = 1_000_000;

/// How long a queue keeps one at least that has no window for duplicates of its own.
pub const SAME_ID_FOR: Duration = Duration::from_hours(72);

/// Begins the names of these marks.
pub const SAME_ID: &str = "same-id";

/// No claim lasts longer: one that seems to was made by a clock that is wrong.
const LONGEST_CLAIM: Duration = Duration::from_hours(24);

/// How often it is tried again where another was faster.
const TRIES: u32 = 4;

/// What a route may do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Attempt it: until then others wait.
    Granted,
    /// Nothing: it has delivered this one.
    Delivered(EventId),
    /// Wait: it attempts this one, which may yet fail.
    Attempted {
        /// The one that is attempted.
        other: EventId,
        /// When its claim ends, if not before.
        until: Timestamp,
    },
}

/// Asks whether a route may attempt an event now, and has others like it wait until `until`.
pub async fn claim(
    marks: &dyn Marks,
    key: FluentKey,
    route: &str,
    id: EventId,
    (now, until): (Timestamp, Timestamp),
) -> Result<Claim, QueueError> {
    let name = name(key, route);
    let until = until.min(latest(now));
    let mut other = (id, now);
    for _ in 0..TRIES {
        let found = marks.get_versioned(&name).await?;
        let version = found.as_ref().map_or(0, |(_, version)| *version);
        match found.and_then(|(value, _)| State::read(&value)) {
            Some(State { id: found, until: None }) if found == id => return Ok(Claim::Granted),
            Some(State { id: found, until: None }) => return Ok(Claim::Delivered(found)),
            Some(State { id: found, until: Some(until) })
                if found != id && now < until && until <= latest(now) =>
            {
                return Ok(Claim::Attempted { other: found, until });
            }
            Some(State { id: found, .. }) => other = (found, now),
            None => {}
        }
        let claimed = State { id, until: Some(until) };
        if marks.compare_and_set(&name, claimed.text().into(), version).await? {
            return Ok(Claim::Granted);
        }
    }
    // Somebody else was faster each time.
    let (other, until) = other;
    Ok(Claim::Attempted { other, until })
}

/// Says that a route has delivered an event: others like it need not be.
pub async fn set_delivered(
    marks: &dyn Marks,
    key: FluentKey,
    route: &str,
    id: EventId,
) -> Result<(), QueueError> {
    marks.set(&name(key, route), State { id, until: None }.text().into()).await
}

/// Says that a route's attempt of an event has failed, at `now`: it keeps no other back until it
/// is attempted again.
pub async fn release(
    marks: &dyn Marks,
    key: FluentKey,
    route: &str,
    id: EventId,
    now: Timestamp,
) -> Result<(), QueueError> {
    let name = name(key, route);
    let Some((value, version)) = marks.get_versioned(&name).await? else { return Ok(()) };
    let is_own = State::read(&value).is_some_and(|state| state.id == id && state.until.is_some());
    if is_own {
        let released = State { id, until: Some(now) };
        // Where another was faster, it has claimed it.
        marks.compare_and_set(&name, released.text().into(), version).await?;
    }
    Ok(())
}

fn name(key: FluentKey, route: &str) -> String {
    format!("{SAME_ID}.{route}.{key}")
}

fn latest(now: Timestamp) -> Timestamp {
    now.saturating_add(LONGEST_CLAIM).unwrap_or(Timestamp::MAX)
}

/// What a mark says: the event, and until when it is attempted; nothing where it is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    id: EventId,
    until: Option<Timestamp>,
}

/// Begins what this version writes.
const VERSION: &str = "1";

impl State {
    fn text(self) -> String {
        match self.until {
            None => format!("{VERSION} {}", self.id),
            Some(until) => format!("{VERSION} {} {until}", self.id),
        }
    }

    /// What can't be read keeps nothing back.
    fn read(value: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(value).ok()?.split(' ');
        if words.next() != Some(VERSION) {
            return None;
        }
        let id = words.next()?.parse().ok()?;
        let until = words.next().map(str::parse).transpose().ok()?;
        Some(Self { id, until })
    }
}

#[cfg(test)]
mod tests {
    use event_model::Environment;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_another_version_wrote_keeps_nothing_back() {
        let id = EventId::of(Environment::Sandbox, b"{}");
        let until = Timestamp::from_second(1_790_000_000).ok();
        for state in [State { id, until }, State { id, until: None }] {
            assert_eq!(State::read(state.text().as_bytes()), Some(state));
        }
        for value in [format!("2 {id}"), format!("1 {id} later"), "1 7".to_owned(), String::new()] {
            assert_eq!(State::read(value.as_bytes()), None, "{value}");
        }
    }
}
