//! A watch over the connection, by the answers to publishes.

use std::sync::{Arc, Mutex, PoisonError};

use crate::connect::NatsConnection;

/// Timeouts in a row after which the connection is given up: if it was cut off together with the
/// leader, the client would take 20 s to notice.
const TOLERATED: u32 = 2;

/// Counts missing answers to tell whether the connection is alive.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionWatchdog {
    link: NatsConnection,
    /// Connection and number of its timeouts in a row.
    missed: Arc<Mutex<(u64, u32)>>,
}

impl ConnectionWatchdog {
    pub(crate) fn new(link: NatsConnection) -> Self {
        Self {
            link,
            missed: Arc::default(),
        }
    }

    /// Returns the connection on which a request is about to be sent.
    pub(crate) fn begin(&self) -> u64 {
        self.link.generation()
    }

    pub(crate) fn on_reply(&self) {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner).1 = 0;
    }

    /// Counts a timeout on connection `of`. After enough of them it changes to another server;
    /// timeouts of an earlier connection do not count.
    pub(crate) async fn on_timeout(&self, of: u64) {
        if of == self.link.generation() && self.link.is_connected() && self.is_too_often(of) {
            tracing::warn!("NATS does not answer: connecting anew");
            let _ = self.link.client.force_reconnect().await;
        }
    }

    fn is_too_often(&self, of: u64) -> bool {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = if missed.0 == of { missed.1 + 1 } else { 1 };
        // Once for each connection, which is as good as gone then.
        *missed = (
            of,
            if count == TOLERATED {
                u32::MAX / 2
            } else {
                count
            },
        );
        count == TOLERATED
    }
}
