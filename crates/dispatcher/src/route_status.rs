//! The registry of this process's routes: state of breaker and rate limit, for `routes list` and
//! metrics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use event_model::Clock;
use queue::{RouteProcessStatus, StatusSource};

use crate::breaker::Breaker;

/// A route that runs here.
#[derive(Clone, Debug)]
pub(crate) struct RegisteredRoute {
    pub(crate) route: String,
    pub(crate) breaker: Arc<Breaker>,
    /// Whether its rate limit delays attempts.
    pub(crate) throttled: Arc<AtomicBool>,
}

/// All routes that run here.
#[derive(Clone, Debug, Default)]
pub(crate) struct StatusRegistry(Arc<Mutex<Vec<RegisteredRoute>>>);

impl StatusRegistry {
    pub(crate) fn register(&self, entry: RegisteredRoute) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(entry);
    }

    /// Returns a source for the state of these routes, which also closes breakers.
    pub(crate) fn status_source(&self, clock: Arc<dyn Clock>) -> StatusSource {
        let registry = self.clone();
        let process = process();
        let closing = self.clone();
        let close = move |route: &str| closing.close_breaker(route);
        let now = move || {
            let entries = registry.0.lock().unwrap_or_else(PoisonError::into_inner);
            let said = entries.iter().map(|entry| RouteProcessStatus {
                route: entry.route.clone(),
                process: process.clone(),
                breaker: entry.breaker.status(&*clock),
                throttled: entry.throttled.load(Ordering::Relaxed),
                superseded_since: None,
            });
            said.collect()
        };
        StatusSource::new(now, close)
    }

    /// Closes a route's breaker at once, when a person says that its destination is repaired.
    fn close_breaker(&self, route: &str) {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries
            .iter()
            .filter(|entry| entry.route == route)
            .for_each(|entry| entry.breaker.close());
    }
}

fn process() -> String {
    format!("{}:{}", process::host_name(), std::process::id())
}
