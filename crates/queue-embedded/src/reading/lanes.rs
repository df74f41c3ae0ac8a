//! Deliveries that a route can hand out next: new ones and those due again, each in a lane of its
//! own, so that neither takes the room of the other.

use std::collections::{HashSet, VecDeque};

use crate::reading::ready::ReadyDelivery;

/// Bounds of the lane of new deliveries: enough to keep the default concurrency busy while the
/// reader sleeps, and small enough for a hundred routes.
const MAX_NEW: usize = 256;
const MAX_NEW_BYTES: usize = 1 << 20;

/// Bounds of the lane of deliveries that are due again.
const MAX_RETRIES: usize = 128;
const MAX_RETRY_BYTES: usize = 512 << 10;

/// Request of a consumer to a route's lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryRequest {
    /// At most this many, from the lanes in turns.
    InTurns(usize),
    /// One delivery: a new one, if there is any.
    Probe,
}

/// Both lanes of a route, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Lanes {
    new: Lane,
    retries: Lane,
    /// Position and redrive of each delivery in the lane of retries.
    known: HashSet<(u64, u32)>,
    /// True if the next delivery is a retry, if there is one.
    is_retrys_turn: bool,
}

impl Lanes {
    pub(crate) fn new() -> Self {
        Self {
            new: Lane::new(MAX_NEW, MAX_NEW_BYTES),
            retries: Lane::new(MAX_RETRIES, MAX_RETRY_BYTES),
            known: HashSet::new(),
            is_retrys_turn: false,
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Adds a delivery that was never attempted.
    pub(crate) fn push_new(&mut self, ready: ReadyDelivery) {
        self.new.push(ready);
    }

    /// Adds a delivery that is due again, unless it is in the lane already.
    pub(crate) fn push_retry(&mut self, ready: ReadyDelivery) {
        let Some(retry) = ready.retry else { return };
        if self.known.insert((ready.position, retry.redrive)) {
            self.retries.push(ready);
        }
    }

    pub(crate) fn take(&mut self, wanted: DeliveryRequest) -> Vec<ReadyDelivery> {
        match wanted {
            DeliveryRequest::Probe => self
                .new
                .pop()
                .or_else(|| self.pop_retry())
                .into_iter()
                .collect(),
            DeliveryRequest::InTurns(permits) => {
                (0..permits).map_while(|_| self.pop_in_turn()).collect()
            }
        }
    }

    fn pop_in_turn(&mut self) -> Option<ReadyDelivery> {
        self.is_retrys_turn = !self.is_retrys_turn;
        match self.is_retrys_turn {
            true => self.pop_retry().or_else(|| self.new.pop()),
            false => self.new.pop().or_else(|| self.pop_retry()),
        }
    }

    fn pop_retry(&mut self) -> Option<ReadyDelivery> {
        let ready = self.retries.pop()?;
        if let Some(retry) = ready.retry {
            self.known.remove(&(ready.position, retry.redrive));
        }
        Some(ready)
    }

    pub(crate) fn is_full_of_new(&self) -> bool {
        self.new.is_full()
    }

    pub(crate) fn is_half_empty_of_new(&self) -> bool {
        self.new.is_half_empty()
    }

    pub(crate) fn has_new(&self) -> bool {
        !self.new.ready.is_empty()
    }

    /// Number of due deliveries to read, if reading is worth it: those that are in the lane are
    /// read again.
    pub(crate) fn room_for_retries(&self) -> Option<usize> {
        self.retries.is_half_empty().then_some(MAX_RETRIES)
    }

    pub(crate) fn len(&self) -> usize {
        self.new.ready.len() + self.retries.ready.len()
    }
}

#[derive(Debug)]
struct Lane {
    ready: VecDeque<ReadyDelivery>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

impl Lane {
    fn new(most: usize, most_bytes: usize) -> Self {
        Self {
            ready: VecDeque::new(),
            bytes: 0,
            most,
            most_bytes,
        }
    }

    fn push(&mut self, ready: ReadyDelivery) {
        self.bytes += ready.event.body().len();
        self.ready.push_back(ready);
    }

    fn pop(&mut self) -> Option<ReadyDelivery> {
        let ready = self.ready.pop_front()?;
        self.bytes -= ready.event.body().len();
        Some(ready)
    }

    fn is_full(&self) -> bool {
        self.ready.len() >= self.most || self.bytes >= self.most_bytes
    }

    fn is_half_empty(&self) -> bool {
        self.ready.len() <= self.most / 2 && self.bytes <= self.most_bytes / 2
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use queue::conformance::event;

    use super::*;
    use crate::reading::ready::Retry;

    fn ready(position: u64, is_retry: bool) -> ReadyDelivery {
        let retry = Retry {
            redrive: 0,
            attempt: 1,
            deaths: 0,
            asks_match: false,
            asked: 1,
        };
        ReadyDelivery {
            position,
            event: Arc::new(event("E", "x")),
            retry: is_retry.then_some(retry),
            matched: None,
        }
    }

    fn positions(taken: &[ReadyDelivery]) -> Vec<u64> {
        taken.iter().map(|ready| ready.position).collect()
    }

    #[test]
    fn the_lanes_take_turns_and_a_probe_is_new() {
        let mut lanes = Lanes::new();
        (1..=4).for_each(|position| lanes.push_retry(ready(position, true)));
        (11..=12).for_each(|position| lanes.push_new(ready(position, false)));
        lanes.push_retry(ready(1, true));
        assert_eq!(positions(&lanes.take(DeliveryRequest::Probe)), [11]);
        assert_eq!(
            positions(&lanes.take(DeliveryRequest::InTurns(3))),
            [1, 12, 2]
        );
        assert_eq!(
            positions(&lanes.take(DeliveryRequest::Probe)),
            [3],
            "nothing is new"
        );
        assert_eq!(positions(&lanes.take(DeliveryRequest::InTurns(9))), [4]);
    }

    #[test]
    fn what_is_due_is_not_read_for_each_place_that_is_free() {
        let mut lanes = Lanes::new();
        (0..MAX_RETRIES as u64).for_each(|position| lanes.push_retry(ready(position, true)));
        let mut reads = 0;
        for _ in 0..MAX_RETRIES {
            lanes.take(DeliveryRequest::InTurns(1));
            reads += usize::from(lanes.room_for_retries().is_some());
        }
        assert_eq!(reads, MAX_RETRIES / 2 + 1, "of a half that is empty");
        assert!(
            !lanes.is_full_of_new(),
            "the lane of what is new is free throughout"
        );
    }
}
