//! Claims by which a route delivers only one of several events that have one key of Fluent's and
//! different bodies.
//!
//! A fact for each route and key says which event the route attempts or has delivered. The event
//! that set it is never kept back by it, however often it comes again. A claim ends by itself,
//! since the process that made it may be gone.

use std::time::Duration;

use event_model::{Bytes, EventId, FluentKey, Timestamp};

use crate::{FactStore, QueueError};

/// Largest number of these facts on a cluster, in all: the newest. Older ones are removed, also
/// when the dedup window is over. In one file, the limit is its share of the file.
pub const SAME_IDS_KEPT: u64 = 1_000_000;

/// Prefix of the names of these facts.
pub const SAME_ID: &str = "same-id";

/// Longest claim: one that seems longer was made by a wrong clock.
const LONGEST_CLAIM: Duration = Duration::from_hours(24);

/// Tries to set the fact while other writers are faster.
const TRIES: u32 = 4;

/// Answer to a route that asks to attempt an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Attempt the event; until the claim ends, others of its key wait.
    Granted(GrantedClaim),
    /// Do nothing: the route has delivered this event of the key.
    Delivered(EventId),
    /// Wait: the route attempts another event of the key, which may yet fail.
    Attempted {
        /// The event that is being attempted.
        other: EventId,
        /// End of its claim, if it is not released before.
        until: Timestamp,
    },
}

/// The claim of one attempt, needed to release it: another attempt of the same event may have
/// claimed it since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantedClaim {
    /// End of the claim; `None` if the event was delivered and comes again, which is never
    /// released.
    until: Option<Timestamp>,
}

/// Decides what an attempt gets, given the value of the fact. Also returns the fact's new value,
/// if it changes.
pub fn decide_claim(
    found: Option<&[u8]>,
    id: EventId,
    (now, until): (Timestamp, Timestamp),
) -> (Claim, Option<Bytes>) {
    match found.and_then(State::read) {
        Some(State {
            id: found,
            until: None,
        }) if found == id => (Claim::Granted(GrantedClaim { until: None }), None),
        Some(State {
            id: found,
            until: None,
        }) => (Claim::Delivered(found), None),
        Some(State {
            id: found,
            until: Some(until),
        }) if found != id && now < until && until <= latest(now) => (
            Claim::Attempted {
                other: found,
                until,
            },
            None,
        ),
        _ => {
            let until = Some(until.min(latest(now)));
            (
                Claim::Granted(GrantedClaim { until }),
                Some(State { id, until }.bytes()),
            )
        }
    }
}

/// The fact's new value after the claimed attempt has failed. `None` if the fact is of another
/// event, or of another attempt of the same event.
pub fn decide_release(found: Option<&[u8]>, id: EventId, granted: GrantedClaim) -> Option<Bytes> {
    let claimed = State {
        id,
        until: granted.until,
    };
    let is_own = granted.until.is_some() && found.and_then(State::read) == Some(claimed);
    // A time that has passed by any clock.
    is_own.then(|| {
        State {
            id,
            until: Some(Timestamp::UNIX_EPOCH),
        }
        .bytes()
    })
}

/// The value of the fact once `id` is delivered.
pub fn delivered(id: EventId) -> Bytes {
    State { id, until: None }.bytes()
}

/// The delivered event in a fact's value, if it says one is.
pub fn delivered_of(found: &[u8]) -> Option<EventId> {
    State::read(found)
        .filter(|state| state.until.is_none())
        .map(|state| state.id)
}

/// The name of the fact of a route and a key.
pub fn name(key: FluentKey, route: &str) -> String {
    format!("{SAME_ID}.{route}.{key}")
}

/// Asks whether a route may attempt an event now; if so, other events of its key wait until
/// `until`.
pub async fn claim(
    facts: &dyn FactStore,
    key: FluentKey,
    route: &str,
    id: EventId,
    (now, until): (Timestamp, Timestamp),
) -> Result<Claim, QueueError> {
    let name = name(key, route);
    let mut other = id;
    for _ in 0..TRIES {
        let found = facts.get_versioned(&name).await?;
        let (value, version) = found.map_or((None, 0), |(value, version)| (Some(value), version));
        let (claim, change) = decide_claim(value.as_deref(), id, (now, until));
        let Some(change) = change else {
            return Ok(claim);
        };
        if facts.compare_and_set(&name, change, version).await? {
            return Ok(claim);
        }
        other = value
            .and_then(|value| State::read(&value))
            .map_or(other, |state| state.id);
    }
    // Another writer was faster each time.
    Ok(Claim::Attempted { other, until: now })
}

/// Records that a route has delivered an event: others of its key need not be.
pub async fn set_delivered(
    facts: &dyn FactStore,
    key: FluentKey,
    route: &str,
    id: EventId,
) -> Result<(), QueueError> {
    facts.set(&name(key, route), delivered(id)).await
}

/// Records that an attempt has failed, so that it keeps no other back.
pub async fn release(
    facts: &dyn FactStore,
    key: FluentKey,
    route: &str,
    id: EventId,
    granted: GrantedClaim,
) -> Result<(), QueueError> {
    let name = name(key, route);
    let Some((value, version)) = facts.get_versioned(&name).await? else {
        return Ok(());
    };
    if let Some(released) = decide_release(Some(&value), id, granted) {
        // If another writer was faster, it has made a claim of its own.
        facts.compare_and_set(&name, released, version).await?;
    }
    Ok(())
}

/// The event of this key that a route has delivered, if any.
pub async fn find_delivered(
    facts: &dyn FactStore,
    key: FluentKey,
    route: &str,
) -> Result<Option<EventId>, QueueError> {
    Ok(facts
        .get(&name(key, route))
        .await?
        .and_then(|found| delivered_of(&found)))
}

fn latest(now: Timestamp) -> Timestamp {
    now.saturating_add(LONGEST_CLAIM).unwrap_or(Timestamp::MAX)
}

/// Value of the fact: the event, and the end of its claim; `None` once it is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    id: EventId,
    until: Option<Timestamp>,
}

/// Version of the encoding, with which each value begins.
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

    /// Reads a value; one that can't be read keeps nothing back.
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
        for value in [
            format!("2 {id}"),
            format!("1 {id} later"),
            "1 7".to_owned(),
            String::new(),
        ] {
            assert_eq!(State::read(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_claim_is_released_by_the_attempt_that_made_it_and_by_no_other() {
        let id = EventId::of(Environment::Sandbox, b"{}");
        let at = |second: i64| Timestamp::from_second(1_790_000_000 + second).unwrap();
        let claimed = |found: Option<&[u8]>, second| match decide_claim(
            found,
            id,
            (at(second), at(second + 60)),
        ) {
            (Claim::Granted(granted), Some(mark)) => (granted, mark),
            other => panic!("{other:?}"),
        };
        let (first, mark) = claimed(None, 0);
        // The lease ran out, and the event is attempted once more.
        let (second, mark) = claimed(Some(&mark), 30);
        assert_eq!(
            decide_release(Some(&mark), id, first),
            None,
            "the second attempt goes on"
        );
        let released = decide_release(Some(&mark), id, second).unwrap();
        let other = EventId::of(Environment::Sandbox, b"[]");
        let behind = (at(-3600), at(-3540));
        let (claim, _) = decide_claim(Some(&released), other, behind);
        assert!(
            matches!(claim, Claim::Granted(_)),
            "also to a clock that is behind: {claim:?}"
        );
        assert_eq!(decide_release(Some(&delivered(id)), id, second), None);
        let again = decide_claim(Some(&delivered(id)), id, behind);
        let (Claim::Granted(again), None) = again else {
            panic!("{again:?}")
        };
        assert_eq!(
            decide_release(Some(&delivered(id)), id, again),
            None,
            "what is delivered stays so"
        );
    }
}
