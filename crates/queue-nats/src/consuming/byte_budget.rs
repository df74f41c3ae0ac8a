//! Memory for the deliveries that a process has in hand, over all of its routes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::consuming::pull_consumer::PULL_BYTES;

/// Bytes that all routes share. What one holds beside its first delivery comes out of this: so a
/// slow route delays no other, and nothing is too large to be delivered.
#[derive(Debug)]
pub(crate) struct ByteBudget {
    limit: u64,
    /// Bytes that one request may bring.
    request: u64,
    used: AtomicU64,
    freed: Notify,
}

impl ByteBudget {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            request: PULL_BYTES.min(limit / 2),
            used: AtomicU64::new(0),
            freed: Notify::new(),
        }
    }

    /// Whether there is room for all that a request may bring: what comes and has none is sent
    /// again, and would come again at once.
    fn has_room(&self) -> bool {
        let used = self.used.load(Ordering::Acquire);
        used.saturating_add(self.request) <= self.limit
    }

    /// Takes these bytes; returns false if there are not as many left.
    fn take(&self, bytes: u64) -> bool {
        let taken = self
            .used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                used.checked_add(bytes).filter(|used| *used <= self.limit)
            });
        taken.is_ok()
    }
}

/// The deliveries that one route has in hand.
#[derive(Debug)]
pub(crate) struct RouteBytes {
    budget: Arc<ByteBudget>,
    count: AtomicUsize,
}

impl RouteBytes {
    pub(crate) fn new(budget: Arc<ByteBudget>) -> Self {
        Self {
            budget,
            count: AtomicUsize::new(0),
        }
    }

    /// Returns how many of the `wanted` deliveries may be requested now.
    pub(crate) fn allowed(&self, wanted: usize) -> usize {
        let has_none = self.count.load(Ordering::Acquire) == 0;
        match (self.budget.has_room(), has_none) {
            (true, _) => wanted,
            (false, true) => wanted.min(1),
            (false, false) => 0,
        }
    }

    /// Takes one more delivery in hand, of so many bytes. `None` if there is no room, and the
    /// route has another.
    pub(crate) fn hold(self: &Arc<Self>, bytes: usize) -> Option<HeldBytes> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        if self.budget.take(bytes) {
            self.count.fetch_add(1, Ordering::AcqRel);
        } else {
            self.count
                .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire)
                .ok()?;
            self.budget.used.fetch_add(bytes, Ordering::AcqRel);
        }
        Some(HeldBytes {
            route: Arc::clone(self),
            bytes,
        })
    }

    /// Waits until the route may request deliveries again.
    pub(crate) async fn freed(&self) {
        loop {
            let freed = self.budget.freed.notified();
            if self.allowed(1) > 0 {
                return;
            }
            freed.await;
        }
    }
}

/// Bytes of one delivery in hand, until they are dropped.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    route: Arc<RouteBytes>,
    bytes: u64,
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        let RouteBytes { budget, count } = &*self.route;
        budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
        let before = count.fetch_sub(1, Ordering::AcqRel);
        if before == 1 || budget.has_room() {
            budget.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_requested_without_room_for_all_that_may_come() {
        // A request may bring 5.
        let budget = Arc::new(ByteBudget::new(10));
        let route = Arc::new(RouteBytes::new(Arc::clone(&budget)));
        let first = route.hold(5);
        assert_eq!(route.allowed(16), 16);
        let second = route.hold(1);
        assert_eq!(route.allowed(16), 0, "4 are left");
        drop((first, second));
        assert_eq!(route.allowed(16), 16);
    }

    #[test]
    fn each_route_has_one_whatever_the_others_hold() {
        let budget = Arc::new(ByteBudget::new(10));
        let route = || Arc::new(RouteBytes::new(Arc::clone(&budget)));
        let (slow, other) = (route(), route());
        let all: Vec<_> = (0..3).map_while(|_| slow.hold(5)).collect();
        assert_eq!(all.len(), 2);
        assert_eq!((slow.allowed(16), other.allowed(16)), (0, 1));
        let first = other.hold(50).expect("it has none");
        assert!(other.hold(1).is_none());
        drop(all);
        assert_eq!(other.allowed(16), 0, "it holds more than there is");
        assert_eq!(slow.allowed(16), 1);
        drop(first);
        assert_eq!(other.allowed(16), 16);
    }
}
