//! What came: by the keys that Fluent knows events by.

use std::collections::HashSet;

use event_model::{Event, FluentKey, Timestamp};
use queue::{ReceivedQuery, Stores};

use crate::error::ReconcileError;

/// Most events that are remembered: 16 bytes each, and as much again for the table.
const MOST: usize = 4_000_000;

/// How many events are read at once.
const PAGE: usize = 1000;

/// Every event of some names that came since a time, kept up to date.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    stores: &'a dyn Stores,
    names: &'a [String],
    since: Timestamp,
    /// Everything up to this position was read.
    position: u64,
    keys: HashSet<FluentKey>,
}

impl<'a> Received<'a> {
    pub(crate) fn new(stores: &'a dyn Stores, names: &'a [String], since: Timestamp) -> Self {
        Self { stores, names, since, position: 0, keys: HashSet::new() }
    }

    /// Reads what came meanwhile.
    pub(crate) async fn catch_up(&mut self) -> Result<(), ReconcileError> {
        loop {
            let query =
                ReceivedQuery { from: self.since, until: Timestamp::MAX, after: self.position, limit: PAGE };
            let page = self.stores.history().received(query).await?;
            if let Some((position, _)) = page.events.last() {
                self.position = self.position.max(*position);
            }
            page.events.iter().for_each(|(_, event)| self.add(event));
            if self.keys.len() > MOST {
                return Err(ReconcileError::TooLong(MOST));
            }
            match page.next {
                Some(next) => self.position = self.position.max(next),
                None => return Ok(()),
            }
        }
    }

    pub(crate) fn add(&mut self, event: &Event) {
        if self.names.iter().any(|name| name == event.name()) {
            self.keys.insert(event.fluent_key());
        }
    }

    pub(crate) fn has(&self, key: FluentKey) -> bool {
        self.keys.contains(&key)
    }
}
