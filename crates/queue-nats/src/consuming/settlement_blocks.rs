//! Settlements that wait for room, and keep their route from fetching more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the settlements of a route that wait for room in a store. While there are any, the
/// route fetches no events: it could not settle these either.
#[derive(Debug, Default)]
pub(crate) struct SettlementBlocks {
    count: AtomicUsize,
    changed: Notify,
}

impl SettlementBlocks {
    pub(crate) fn is_blocked(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Waits until the count may have changed.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(crate) fn begin(self: &Arc<Self>, route: &str) -> BlockGuard {
        if self.count.fetch_add(1, Ordering::AcqRel) == 0 {
            tracing::error!(
                route,
                "there is no room to settle a delivery: the route takes no new events until there is"
            );
        }
        BlockGuard(Arc::clone(self))
    }
}

/// A settlement that waits for room, until it is dropped.
#[derive(Debug)]
pub(crate) struct BlockGuard(Arc<SettlementBlocks>);

impl Drop for BlockGuard {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_one();
    }
}
