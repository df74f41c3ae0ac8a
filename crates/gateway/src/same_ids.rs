//! Recent Fluent ids, to count ids that come again with another body. Each process knows only its
//! own; the treatment of such events by a route is based on the queue.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::{Mutex, PoisonError};

use event_model::{Event, EventId};

/// Ids in one generation; two generations are remembered. The hash has a secret of the process,
/// so that nobody can choose ids that collide. Two full ones take some 4 MB.
const GENERATION: usize = 1 << 16;

/// The last ids, with the first event of each.
#[derive(Debug, Default)]
pub(crate) struct SameIds {
    hashing: RandomState,
    generations: Mutex<Generations>,
}

/// Digests of ids, each with the first bytes of its event's own id.
#[derive(Debug, Default)]
struct Generations {
    newer: HashMap<u64, u64>,
    older: HashMap<u64, u64>,
}

impl SameIds {
    /// True if another event with this account, Fluent id and name came before. Costs one lookup
    /// for each accepted event.
    pub(crate) fn is_another(&self, event: &Event) -> bool {
        let id = event.fields().fluent_event_id.as_deref();
        let key = self.hashing.hash_one((
            event.environment().as_str(),
            event.account(),
            id,
            event.name(),
        ));
        let mut generations = self
            .generations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        generations.first(key, beginning(event.id())) != beginning(event.id())
    }
}

impl Generations {
    /// The first event of an id: `event` itself if none is remembered.
    fn first(&mut self, key: u64, event: u64) -> u64 {
        if let Some(first) = self.newer.get(&key).or_else(|| self.older.get(&key)) {
            return *first;
        }
        if self.newer.len() >= GENERATION {
            self.older = mem::take(&mut self.newer);
        }
        *self.newer.entry(key).or_insert(event)
    }
}

fn beginning(id: EventId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *id.as_bytes();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use queue::conformance::event;

    use super::*;

    #[test]
    fn an_event_is_no_other_than_itself() {
        let ids = SameIds::default();
        for (name, reference) in [("E", "a"), ("E", "a"), ("E", "b"), ("F", "a")] {
            assert!(
                !ids.is_another(&event(name, reference)),
                "{name} {reference}"
            );
        }
    }

    #[test]
    fn the_last_ids_are_remembered_and_no_more() {
        let mut generations = Generations::default();
        let last = 5 * GENERATION as u64;
        for key in 0..last {
            assert_eq!(generations.first(key, key), key);
        }
        assert!(generations.newer.len() + generations.older.len() <= 2 * GENERATION);
        for key in last - GENERATION as u64..last {
            assert_eq!(
                generations.first(key, 0),
                key,
                "it is remembered, and what it came with"
            );
        }
        assert_eq!(generations.first(7, 1), 1, "long ago");
    }
}
