//! One event of Fluent's that came twice, with different bodies: a route may want one of them.
//!
//! Which of them a route attempts or has delivered is a mark for each route and event. It names
//! the event that set it, which is therefore never kept back by it, however often it comes again.
//! A claim ends by itself: whoever made it may be gone.

use std::time::Duration;

use event_model::{Bytes, EventId, FluentKey, Timestamp};

use crate::{Marks, QueueError};

/// How many of the newest of these marks a cluster keeps at most, in all. Those before go, as
/// they do when its window for duplicates is over; one file keeps what fits its share of it.
pub const SAME_IDS_KEPT: u64 = 1_000_000;

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
    Granted(Granted),
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

/// What one attempt has claimed, by which it is released: another attempt of the same event
/// may have claimed it since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Nothing where the event is delivered and comes again: that is never released.
    until: Option<Timestamp>,
}

/// Says what an attempt gets where a mark says this, and what the mark is to say then, if
/// something else.
pub fn decide_claim(
    found: Option<&[u8]>,
    id: EventId,
    (now, until): (Timestamp, Timestamp),
) -> (Claim, Option<Bytes>) {
    match found.and_then(State::read) {
        Some(State { id: found, until: None }) if found == id => {
            (Claim::Granted(Granted { until: None }), None)
        }
        Some(State { id: found, until: None }) => (Claim::Delivered(found), None),
        Some(State { id: found, until: Some(until) })
            if found != id && now < until && until <= latest(now) =>
        {
            (Claim::Attempted { other: found, until }, None)
        }
        _ => {
            let until = Some(until.min(latest(now)));
            (Claim::Granted(Granted { until }), Some(State { id, until }.bytes()))
        }
    }
}

/// Says what a mark is to say that says this, once what was claimed has failed: nothing else
/// where it is another's, or another attempt's of the same event.
pub fn decide_release(found: Option<&[u8]>, id: EventId, granted: Granted) -> Option<Bytes> {
    let claimed = State { id, until: granted.until };
    let is_own = granted.until.is_some() && found.and_then(State::read) == Some(claimed);
    // Long past by anybody's clock.
    is_own.then(|| State { id, until: Some(Timestamp::UNIX_EPOCH) }.bytes())
}

/// What the mark of a delivered event says.
pub fn delivered(id: EventId) -> Bytes {
    State { id, until: None }.bytes()
}

/// The event that a mark says is delivered.
pub fn delivered_of(found: &[u8]) -> Option<EventId> {
    State::read(found).filter(|state| state.until.is_none()).map(|state| state.id)
}

/// The name of a route's mark of the events of this key.
pub fn name(key: FluentKey, route: &str) -> String {
    format!("{SAME_ID}.{route}.{key}")
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
    let mut other = id;
    for _ in 0..TRIES {
        let found = marks.get_versioned(&name).await?;
        let (value, version) = found.map_or((None, 0), |(value, version)| (Some(value), version));
        let (claim, change) = decide_claim(value.as_deref(), id, (now, until));
        let Some(change) = change else { return Ok(claim) };
        if marks.compare_and_set(&name, change, version).await? {
            return Ok(claim);
        }
        other = value.and_then(|value| State::read(&value)).map_or(other, |state| state.id);
    }
    // Somebody else was faster each time.
    Ok(Claim::Attempted { other, until: now })
}

/// Says that a route has delivered an event: others like it need not be.
pub async fn set_delivered(
    marks: &dyn Marks,
    key: FluentKey,
    route: &str,
    id: EventId,
) -> Result<(), QueueError> {
    marks.set(&name(key, route), delivered(id)).await
}

/// Says that an attempt has failed: it keeps no other back.
pub async fn release(
    marks: &dyn Marks,
    key: FluentKey,
    route: &str,
    id: EventId,
    granted: Granted,
) -> Result<(), QueueError> {
    let name = name(key, route);
    let Some((value, version)) = marks.get_versioned(&name).await? else { return Ok(()) };
    if let Some(released) = decide_release(Some(&value), id, granted) {
        // Where another was faster, it has claimed it.
        marks.compare_and_set(&name, released, version).await?;
    }
    Ok(())
}

/// The event of this key that a route has delivered, if it has one.
pub async fn find_delivered(
    marks: &dyn Marks,
    key: FluentKey,
    route: &str,
) -> Result<Option<EventId>, QueueError> {
    Ok(marks.get(&name(key, route)).await?.and_then(|found| delivered_of(&found)))
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
    fn bytes(self) -> Bytes {
        self.text().into()
    }

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

    #[test]
    fn a_claim_is_released_by_the_attempt_that_made_it_and_by_no_other() {
        let id = EventId::of(Environment::Sandbox, b"{}");
        let at = |second: i64| Timestamp::from_second(1_790_000_000 + second).unwrap();
        let claimed =
            |found: Option<&[u8]>, second| match decide_claim(found, id, (at(second), at(second + 60))) {
                (Claim::Granted(granted), Some(mark)) => (granted, mark),
                other => panic!("{other:?}"),
            };
        let (first, mark) = claimed(None, 0);
        // Its lease ran out, and it is attempted once more.
        let (second, mark) = claimed(Some(&mark), 30);
        assert_eq!(decide_release(Some(&mark), id, first), None, "the second attempt goes on");
        let released = decide_release(Some(&mark), id, second).unwrap();
        let other = EventId::of(Environment::Sandbox, b"[]");
        let behind = (at(-3600), at(-3540));
        let (claim, _) = decide_claim(Some(&released), other, behind);
        assert!(matches!(claim, Claim::Granted(_)), "also to a clock that is behind: {claim:?}");
        assert_eq!(decide_release(Some(&delivered(id)), id, second), None);
        let again = decide_claim(Some(&delivered(id)), id, behind);
        let (Claim::Granted(again), None) = again else { panic!("{again:?}") };
        assert_eq!(decide_release(Some(&delivered(id)), id, again), None, "what is delivered stays so");
    }
}
