use std::fmt;
use std::sync::Arc;

use event_model::Timestamp;
use serde::{Deserialize, Serialize};

/// What one process says of a route that it runs: what a store can't know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Working {
    /// The route.
    pub route: String,
    /// `<host>:<process id>`.
    pub process: String,
    /// Whether the destination is asked.
    pub breaker: BreakerState,
    /// Whether the route's rate holds back attempts that could begin.
    pub throttled: bool,
}

/// Whether a route's destination is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum BreakerState {
    /// It is.
    Closed,
    /// It fails, and is left alone.
    Open {
        /// Not before this.
        until: Timestamp,
    },
    /// One attempt finds out whether it is back.
    HalfOpen,
}

/// Says how every route of this process stands, now, and hears what is asked of them.
#[derive(Clone)]
pub struct Look {
    now: Arc<dyn Fn() -> Vec<Working> + Send + Sync>,
    close_breaker: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Look {
    /// Neither may block: they are called by whoever serves the queue.
    pub fn new(
        now: impl Fn() -> Vec<Working> + Send + Sync + 'static,
        close_breaker: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        Self { now: Arc::new(now), close_breaker: Arc::new(close_breaker) }
    }

    /// How they stand now.
    pub fn now(&self) -> Vec<Working> {
        (self.now)()
    }

    /// A person wants this route's destination to be asked at once.
    pub fn close_breaker(&self, route: &str) {
        (self.close_breaker)(route);
    }
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Look(..)")
    }
}
