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

/// Says how every route of this process stands, now.
#[derive(Clone)]
pub struct Look(Arc<dyn Fn() -> Vec<Working> + Send + Sync>);

impl Look {
    /// Must not block: it is called by whoever serves the queue.
    pub fn new(look: impl Fn() -> Vec<Working> + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }

    /// How they stand now.
    pub fn now(&self) -> Vec<Working> {
        (self.0)()
    }
}

impl fmt::Debug for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Look(..)")
    }
}
