//! Options of the queue: servers, identity, and the layout of the streams.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use event_model::StoredVerifier;
use queue::{HistoryIndex, REMOVED_AFTER};

/// Bytes of the deliveries that a process has in hand: a hundred of the largest.
const IN_HAND_BYTES: u64 = 256 << 20;

/// Servers, our identity there, and the expected streams.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses, as `nats://host:port` or `tls://host:port`; more than one of a cluster.
    pub servers: Vec<String>,
    /// Name of this connection on the server.
    pub name: String,
    /// Our identity on the server.
    pub identity: Identity,
    /// Protection of the connection.
    pub tls: Tls,
    /// Prefix of the subjects on which answers come; the server's permissions name it.
    pub inbox_prefix: String,
    /// Whether to learn of the cluster's other servers from those that are named.
    pub discover_servers: bool,
    /// The expected streams and their limits.
    pub layout: Layout,
    /// Age from which settled events are removed. Not less than the dedup window: the server
    /// knows only the ids of stored messages.
    pub retention_age: Duration,
    /// Least age at which a settled event is removed if its stream is crowded: younger ones a
    /// spool may have to read back.
    pub crowded_age: Duration,
    /// Interval at which retention runs.
    pub janitor_every: Duration,
    /// Bytes of the deliveries that this process has in hand, over all routes, which each may
    /// exceed by one delivery.
    pub in_hand_bytes: u64,
    /// Index in which events and attempts are looked up. Without one, streams are read through.
    pub index: Option<Arc<dyn HistoryIndex>>,
    /// Verifier for what is taken out of the streams. Without one, whatever is written there is
    /// believed.
    pub verifier: Option<Arc<dyn StoredVerifier>>,
    /// Shortest wait before a delivery with an unknown key is looked at again; it grows with the
    /// age of the delivery.
    pub key_retry: Duration,
}

/// The expected streams and their limits, which `cluster init` makes and `check` compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Number of servers on which each stream is kept: 1, 3 or 5.
    pub replicas: usize,
    /// Most bytes of events; beyond, new ones are refused.
    pub bytes: u64,
    /// Time for which an id is known.
    pub dedup_window: Duration,
    /// Longest time for which attempts are kept: they are removed earlier if they take a tenth of
    /// the bytes that events may.
    pub history: Duration,
}

/// Our identity on the server.
#[derive(Clone, Debug, Default)]
pub enum Identity {
    /// Without credentials.
    #[default]
    Anonymous,
    /// A file with a JWT and its key.
    Credentials(PathBuf),
    /// A file with an NKey's seed.
    Nkey(PathBuf),
    /// A name and a file with the password.
    Password(String, PathBuf),
}

/// Protection of the connection.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Whether to refuse a server without TLS.
    pub required: bool,
    /// Authorities that may vouch for the servers, instead of the system's.
    pub ca: Option<PathBuf>,
    /// Files with our own certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Options {
    /// Options for these servers, without TLS, with one replica.
    pub fn new(servers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            servers: servers.into_iter().map(Into::into).collect(),
            name: "fluent-webhooks".to_owned(),
            identity: Identity::default(),
            tls: Tls::default(),
            inbox_prefix: "_INBOX".to_owned(),
            discover_servers: true,
            layout: Layout {
                replicas: 1,
                bytes: 10 << 30,
                dedup_window: Duration::from_hours(28),
                history: Duration::from_hours(7 * 24),
            },
            retention_age: Duration::from_hours(7 * 24),
            crowded_age: REMOVED_AFTER,
            janitor_every: Duration::from_secs(30),
            in_hand_bytes: IN_HAND_BYTES,
            index: None,
            verifier: None,
            key_retry: Duration::from_secs(15),
        }
    }
}
