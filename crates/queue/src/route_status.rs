//! Reports of a process on the routes that it runs, which a store can't know.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use event_model::Timestamp;
use serde::{Deserialize, Serialize};

/// State of a route in one process that runs it: what a store can't know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct RouteProcessStatus {
    /// The route.
    pub route: String,
    /// The process, as `<host>:<process id>`.
    pub process: String,
    /// State of the route's breaker.
    pub breaker: BreakerState,
    /// Whether the route's rate limit holds back attempts that could begin.
    pub throttled: bool,
    /// Since when the process leaves the route's new events to one that joined with another match;
    /// `None` if the route has its match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_since: Option<Timestamp>,
}

/// Time after which two matches of one route are a conflict of two services, and no longer a new
/// version that takes over.
pub const CONFLICT_AFTER: Duration = Duration::from_mins(5);

impl RouteProcessStatus {
    /// Whether the process has left the route's new events to others for so long that it is a
    /// conflict.
    pub fn is_in_conflict(&self, now: Timestamp) -> bool {
        self.superseded_since
            .and_then(|since| since.checked_add(CONFLICT_AFTER).ok())
            .is_some_and(|then| then <= now)
    }
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
        f.write_str("StatusSource(..)")
    }
}
