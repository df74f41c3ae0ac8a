use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_nats::Client;

/// Timeouts in a row after which the connection is not believed any more: cut
/// off together with the leader, it would take the client 20 s to notice.
const TOLERATED: u32 = 2;

/// Whether the connection is alive, by what comes back.
#[derive(Clone, Debug)]
pub(crate) struct Pulse {
    client: Client,
    missed: Arc<AtomicU32>,
}

impl Pulse {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, missed: Arc::default() }
    }

    pub(crate) fn felt(&self) {
        self.missed.store(0, Ordering::Relaxed);
    }

    /// Nothing came. Goes to another server when it happens again.
    pub(crate) async fn missed(&self) {
        if self.missed.fetch_add(1, Ordering::Relaxed) + 1 >= TOLERATED {
            self.felt();
            tracing::warn!("NATS does not answer: connecting anew");
            let _ = self.client.force_reconnect().await;
        }
    }
}
