//! How the machinery behind the stores does: servers and room.

/// How servers do, and how full what they keep is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoresHealth {
    /// The servers that the settings name, and those of which these tell.
    pub servers: Vec<ServerHealth>,
    /// What has a limit of its own.
    pub usage: Vec<StoreUsage>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHealth {
    /// Its address or its name.
    pub name: String,
    /// What is wrong with it.
    pub state: ServerState,
}

/// How a server does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// It answers, and has what it should have.
    Well,
    /// It answers, and is behind: of these streams.
    Behind(Vec<String>),
    /// It does not answer.
    Gone,
}

/// How full a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreUsage {
    /// Which one.
    pub name: String,
    /// Bytes that nothing may remove yet.
    pub used: u64,
    /// Bytes that there is room for; nothing where only the settings know.
    pub limit: Option<u64>,
    /// Settled events are in it, and make room when it fills: what nothing may remove is
    /// the share that some route has still to settle.
    pub has_settled: bool,
}

impl StoreUsage {
    /// How full it is; nothing where its limit is not known.
    pub fn share(&self) -> Option<f64> {
        self.limit.map(|limit| self.used as f64 / limit.max(1) as f64)
    }
}
