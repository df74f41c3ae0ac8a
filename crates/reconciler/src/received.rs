//! The events that were received, compared with those that should have been.

use std::collections::HashMap;

use event_model::{FluentKey, Timestamp};
use queue::{Position, ReceivedQuery, Stores};

use crate::error::ReconcileError;

/// Most events that are held in memory, with a few dozen bytes each, if an hour has so many.
const MOST: usize = 2_000_000;

/// Number of keys that are read at once.
const PAGE: usize = 50_000;

/// Events that should have been received and were not seen yet, by the slice of time in which
/// they were logged.
#[derive(Debug, Default)]
pub(crate) struct Expected(HashMap<FluentKey, usize>);

impl Expected {
    /// Adds an event; returns whether it was not there before.
    pub(crate) fn add(&mut self, key: FluentKey, slice: usize) -> Result<bool, ReconcileError> {
        if self.0.len() >= MOST {
            return Err(ReconcileError::TooLong(MOST));
        }
        Ok(self.0.insert(key, slice).is_none())
    }

    pub(crate) fn has(&self, key: FluentKey) -> bool {
        self.0.contains_key(&key)
    }

    pub(crate) fn remove(&mut self, key: FluentKey) {
        self.0.remove(&key);
    }

    /// Removes the events of all slices before this one; returns how many there were.
    pub(crate) fn forget_before(&mut self, slice: usize) -> usize {
        let all = self.0.len();
        self.0.retain(|_, of| *of >= slice);
        all - self.0.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether an event of this slice is among them.
    pub(crate) fn is_of(&self, slice: usize) -> bool {
        self.0.values().any(|of| *of == slice)
    }
}

/// Reader of everything that was received since a time: all of it at first, and then what came
/// meanwhile.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    stores: &'a dyn Stores,
    since: Timestamp,
    /// Everything up to this position was read.
    position: Position,
}

impl<'a> Received<'a> {
    pub(crate) fn new(stores: &'a dyn Stores, since: Timestamp) -> Self {
        Self {
            stores,
            since,
            position: Position::START,
        }
    }

    /// Removes the events that were received. Most come soon after they are logged, so mostly not
    /// much is read.
    pub(crate) async fn remove_received(
        &mut self,
        expected: &mut Expected,
    ) -> Result<(), ReconcileError> {
        while expected.len() > 0 {
            let query = ReceivedQuery {
                from: self.since,
                until: Timestamp::MAX,
                after: self.position,
                limit: PAGE,
            };
            let page = self.stores.history().received_keys(query).await?;
            let of_ours = page.keys.iter().filter(|(_, key)| expected.has(*key));
            let of_ours: Vec<_> = of_ours.copied().collect();
            // A key alone proves nothing where others can write: an event that never came would
            // not be missed.
            for key in self.stores.history().genuine_keys(of_ours).await? {
                expected.remove(key);
            }
            for (position, _) in &page.keys {
                self.position = self.position.max(*position);
            }
            match page.next {
                Some(next) => self.position = self.position.max(next),
                None => break,
            }
        }
        Ok(())
    }
}
