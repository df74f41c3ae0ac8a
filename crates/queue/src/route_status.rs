//! Reports of a process on the routes that it runs, which a store can't know.

use std::fmt;
use std::sync::Arc;

use event_model::Timestamp;
use serde::{Deserialize, Serialize};

/// State of a route in one process that runs it: what a store can't know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RouteProcessStatus {
    /// The route.
    pub route: String,
    /// State of the route's breaker.
    pub process: String,
    /// Whether the destination is asked, by the breaker.
    pub breaker: BreakerState,
    /// Whether the route's rate limit holds back attempts that could begin.
    pub throttled: bool,
}

/// State of a route's breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum BreakerState {
    /// The destination is asked.
    Closed,
    /// The destination fails, and is not asked.
    Open {
        /// The earliest time of the next attempt.
        until: Timestamp,
    },
    /// The destination failed, and one attempt finds out whether it is back.
    HalfOpen,
}

/// Source of the current state of every route of this process. Also passes on requests to close a
/// breaker.
#[derive(Clone)]
pub struct StatusSource {
    now: Arc<dyn Fn() -> Vec<RouteProcessStatus> + Send + Sync>,
    close_breaker: Arc<dyn Fn(&str) + Send + Sync>,
}

impl StatusSource {
    /// Makes a source of two functions. Neither may block: they are called by the process's
    /// connection to the queue.
    pub fn new(
        now: impl Fn() -> Vec<RouteProcessStatus> + Send + Sync + 'static,
        close_breaker: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        Self {
            now: Arc::new(now),
            close_breaker: Arc::new(close_breaker),
        }
    }

    /// The current state of the routes.
    pub fn now(&self) -> Vec<RouteProcessStatus> {
        (self.now)()
    }

    /// Asks the destination of `route` at once, as a person wants.
    pub fn close_breaker(&self, route: &str) {
        (self.close_breaker)(route);
    }
}

impl fmt::Debug for StatusSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Look(..)")
    }
}
