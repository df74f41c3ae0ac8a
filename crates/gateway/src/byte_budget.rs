//! The budget for the bytes of bodies that all requests have in memory at once.
//!
//! Bytes count as they arrive, by the memory that they take and not by what is announced. A part
//! of the budget is reserved for small bodies, as nearly all are. When a body needs room, bodies
//! of a source with more than its share give way, as long as they are still being received.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use process::{ClientNetwork, ProvenSources, ShareDenied, SourceShares};
use tokio_util::sync::CancellationToken;

/// A body up to this size is small: Fluent's events have a few KiB.
const SMALL: usize = 64 << 10;

/// The reserve for small bodies is the budget divided by this.
const KEPT_FOR_SMALL: usize = 4;

/// A budget of bytes for bodies. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct ByteBudget(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    shares: SourceShares,
    total: usize,
    next: u64,
    bodies: HashMap<u64, Counted>,
}

#[derive(Debug)]
struct Counted {
    source: ClientNetwork,
    bytes: usize,
    is_complete: bool,
    gave_way: CancellationToken,
}

/// The bytes of the budget that one body uses, given back on drop.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    budget: ByteBudget,
    id: u64,
    gave_way: CancellationToken,
}

impl ByteBudget {
    pub(crate) fn new(total: usize, proven: ProvenSources) -> Self {
        let shares = SourceShares::new(total, SMALL.min(total), proven);
        Self(Arc::new(Mutex::new(Table {
            shares,
            total,
            next: 0,
            bodies: HashMap::new(),
        })))
    }

    /// Begins to count a body of this source, with no bytes yet.
    pub(crate) fn begin(&self, source: ClientNetwork) -> HeldBytes {
        let gave_way = CancellationToken::new();
        let mut table = self.lock();
        table.next += 1;
        let id = table.next;
        let counted = Counted {
            source,
            bytes: 0,
            is_complete: false,
            gave_way: gave_way.clone(),
        };
        table.bodies.insert(id, counted);
        HeldBytes {
            budget: self.clone(),
            id,
            gave_way,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HeldBytes {
    /// Raises the body's use to `bytes` in all, or fails if the budget or the source's share
    /// allows no more.
    pub(crate) fn grow_to(&self, bytes: usize) -> Result<(), ShareDenied> {
        self.budget.lock().grow(self.id, bytes)
    }

    /// Marks the body as received in full, after which it does not give way to others.
    pub(crate) fn complete(&self) {
        if let Some(body) = self.budget.lock().bodies.get_mut(&self.id) {
            body.is_complete = true;
        }
    }

    /// A token that fires when this body has to give way to another.
    pub(crate) fn evicted(&self) -> &CancellationToken {
        &self.gave_way
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.lock().remove(self.id);
    }
}

impl Table {
    fn grow(&mut self, id: u64, to: usize) -> Result<(), ShareDenied> {
        let Some(body) = self.bodies.get(&id) else {
            return Err(ShareDenied::OverShare);
        };
        let source = body.source;
        let more = to.saturating_sub(body.bytes);
        let reserved = if to > SMALL {
            self.total / KEPT_FOR_SMALL
        } else {
            0
        };
        while let Err(denied) = self.shares.allows(source, more, reserved) {
            let gives_way = self
                .gives_way(source, more)
                .filter(|_| denied == ShareDenied::Full)
                .ok_or(denied)?;
            if let Some(gave_way) = self.remove(gives_way) {
                gave_way.cancel();
            }
        }
        self.shares.add(source, more);
        if let Some(body) = self.bodies.get_mut(&id) {
            body.bytes += more;
        }
        Ok(())
    }

    /// The body that gives way to source `to`, which wants `more`: the largest that is still
    /// being received, among those that have to yield, and of an unproven source if there is one.
    fn gives_way(&self, to: ClientNetwork, more: usize) -> Option<u64> {
        let largest = |is_proven: bool| {
            let those = self.bodies.iter().filter(|(_, body)| {
                !body.is_complete
                    && body.bytes > 0
                    && self.shares.is_proven(body.source) == is_proven
                    && self.shares.yields(body.source, to, more)
            });
            those.max_by_key(|(_, body)| body.bytes)
        };
        let found = largest(false).or_else(|| largest(true));
        found.map(|(id, _)| *id)
    }

    fn remove(&mut self, id: u64) -> Option<CancellationToken> {
        let Counted {
            source,
            bytes,
            gave_way,
            ..
        } = self.bodies.remove(&id)?;
        self.shares.remove(source, bytes);
        Some(gave_way)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const MIB: usize = 1 << 20;

    fn source(number: u8) -> ClientNetwork {
        ClientNetwork::from(IpAddr::from([192, 0, 2, number]))
    }

    fn fill(budget: &ByteBudget, source: ClientNetwork, each: usize) -> Vec<HeldBytes> {
        let mut held = Vec::new();
        loop {
            let body = budget.begin(source);
            if body.grow_to(each).is_err() {
                return held;
            }
            held.push(body);
        }
    }

    #[test]
    fn one_source_may_have_all_but_what_is_kept_for_small_bodies() {
        let budget = ByteBudget::new(64 * MIB, ProvenSources::default());
        let large = fill(&budget, source(1), 2 * MIB);
        assert_eq!(large.len(), 24);
        let small = budget.begin(source(1));
        assert_eq!(small.grow_to(SMALL), Ok(()));
        assert_eq!(small.grow_to(2 * MIB), Err(ShareDenied::Full));
    }

    #[test]
    fn another_source_gets_room_from_who_has_more_than_its_share() {
        let budget = ByteBudget::new(64 * MIB, ProvenSources::default());
        let large = fill(&budget, source(1), 2 * MIB);
        large[0].complete();
        let other = budget.begin(source(2));
        assert_eq!(other.grow_to(2 * MIB), Ok(()));
        assert_eq!(
            large
                .iter()
                .filter(|body| body.evicted().is_cancelled())
                .count(),
            1
        );
        assert!(!large[0].evicted().is_cancelled(), "all of it is here");
        assert_eq!(
            budget.begin(source(1)).grow_to(2 * MIB),
            Err(ShareDenied::OverShare)
        );
        drop((large, other));
        assert_eq!(budget.lock().shares.used(), 0);
    }

    #[test]
    fn who_sent_a_genuine_webhook_keeps_its_room() {
        let proven = ProvenSources::default();
        let budget = ByteBudget::new(64 * MIB, proven.clone());
        proven.note(source(1));
        let large = fill(&budget, source(1), 2 * MIB);
        assert_eq!(
            budget.begin(source(2)).grow_to(2 * MIB),
            Err(ShareDenied::Full)
        );
        assert_eq!(budget.begin(source(2)).grow_to(SMALL), Ok(()));
        assert!(large.iter().all(|body| !body.evicted().is_cancelled()));
    }

    #[test]
    fn a_proven_sources_surplus_is_anothers_once_no_stranger_has_any() {
        let proven = ProvenSources::default();
        let budget = ByteBudget::new(64 * MIB, proven.clone());
        let strangers = fill(&budget, source(3), MIB);
        (1..=2).for_each(|number| proven.note(source(number)));
        let many = fill(&budget, source(1), 2 * MIB);
        assert!(strangers.iter().all(|body| body.evicted().is_cancelled()));
        let some = fill(&budget, source(2), 2 * MIB);
        assert_eq!((many.len(), some.len()), (24, 8), "each has its half");
    }

    #[test]
    fn it_takes_what_many_strangers_have_together() {
        let proven = ProvenSources::default();
        let budget = ByteBudget::new(64 * MIB, proven.clone());
        let many: Vec<_> = (0..24)
            .map(|number| fill(&budget, source(number), 2 * MIB))
            .collect();
        proven.note(source(99));
        let good = fill(&budget, source(99), 2 * MIB);
        assert_eq!(good.len(), 24, "{} strangers", many.len());
    }
}
