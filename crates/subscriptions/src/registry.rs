//! The routes whose events are handed to subscribers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::pool::SubscriberPool;
use crate::settings::SubscriptionSettings;

/// The subscription routes of this process, each with its subscribers. The dispatchers and the
/// gRPC service share it.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionRegistry(Arc<Mutex<HashMap<String, Arc<SubscriberPool>>>>);

impl SubscriptionRegistry {
    /// The subscribers of a route, which are created if there are none.
    pub(crate) fn open(&self, route: &str, settings: SubscriptionSettings) -> Arc<SubscriberPool> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(
            lines
                .entry(route.to_owned())
                .or_insert_with(|| Arc::new(SubscriberPool::new(settings))),
        )
    }

    /// The subscribers of a route, if this process runs it.
    pub(crate) fn pool(&self, route: &str) -> Option<Arc<SubscriberPool>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(route)
            .cloned()
    }
}
