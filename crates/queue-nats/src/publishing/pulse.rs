use std::sync::{Arc, Mutex, PoisonError};

use crate::connect::Link;

/// Timeouts in a row after which the connection is not believed any more: cut
/// off together with the leader, it would take the client 20 s to notice.
const TOLERATED: u32 = 2;

/// Whether the connection is alive, by what comes back.
#[derive(Clone, Debug)]
pub(crate) struct Pulse {
    link: Link,
    /// How often nothing came, and on which connection.
    missed: Arc<Mutex<(u64, u32)>>,
}

impl Pulse {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, missed: Arc::default() }
    }

    /// Which connection something is asked on.
    pub(crate) fn begin(&self) -> u64 {
        self.link.generation()
    }

    pub(crate) fn felt(&self) {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).1 = 0;
    }

    /// Nothing came to what was asked on connection `of`. Goes to another server
    /// when that happens again; what an earlier connection lost does not count.
    pub(crate) async fn missed(&self, of: u64) {
        if of == self.link.generation() && self.link.is_connected() && self.is_too_often(of) {
            tracing::warn!("NATS does not answer: connecting anew");
            let _ = self.link.client.force_reconnect().await;
        }
    }

    fn is_too_often(&self, of: u64) -> bool {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = if missed.0 == of { missed.1 + 1 } else { 1 };
        // Once for each connection: it is as good as gone then.
        *missed = (of, if count == TOLERATED { u32::MAX / 2 } else { count });
        count == TOLERATED
    }
}
