//! Health of the servers and the disk space behind a queue's stores.

use std::time::Duration;

/// Health of the servers, and how full their stores are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoresHealth {
    /// The servers that the settings name, and the servers that those report.
    pub servers: Vec<ServerHealth>,
    /// Every store with a limit of its own.
    pub usage: Vec<StoreUsage>,
    /// For how long the queue knows which of several events of one key a route has delivered, if
    /// older facts had to make room; `None` while it knows for the whole dedup window.
    pub same_ids_known_for: Option<Duration>,
}

/// One server, and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHealth {
    /// Its address or its name.
    pub name: String,
    /// The state that was seen.
    pub state: ServerState,
}

/// State of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// The server answers, and has what it should have.
    Well,
    /// The server answers, and is behind in these streams.
    Behind(Vec<String>),
    /// The server does not answer.
    Gone,
}

/// Fill level of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUsage {
    /// The store's name.
    pub name: String,
    /// Bytes that may not be removed yet.
    pub used: u64,
    /// Bytes that the store has room for; `None` if only the settings know.
    pub limit: Option<u64>,
    /// True if the store also has settled events, which make room when it fills: `used` is then
    /// what some route has still to settle.
    pub has_settled: bool,
}

impl StoreUsage {
    /// Part of the limit that is used, 1.0 for all of it; `None` if the limit is not known.
    pub fn share(&self) -> Option<f64> {
        self.limit
            .map(|limit| self.used as f64 / limit.max(1) as f64)
    }
}
