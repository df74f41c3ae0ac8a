//! Forwarding genuine bodies that are not events from the spool to the quarantine, or to the store
//! of rejected webhooks where the quarantine is full.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::forward::AGAIN_MAX;
use crate::store::File;
use queue::{QuarantineOverflow, Quarantined, QueueError, Upstream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Number of bodies read at a time.
const BODIES: usize = 256;

/// The way of bodies that have no room in the quarantine, once it is set.
pub(crate) type OverflowHook = OnceLock<Arc<dyn QuarantineOverflow>>;

/// Forwards the bodies of one spool.
pub(crate) struct BodyForwarder {
    pub(crate) spool: Arc<File>,
    pub(crate) queue: Arc<dyn Upstream>,
    pub(crate) overflow: Arc<OverflowHook>,
}

impl fmt::Debug for BodyForwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyForwarder").finish_non_exhaustive()
    }
}

impl BodyForwarder {
    /// Forwards bodies until `closing`; `kept` wakes it.
    pub(crate) async fn run(self, kept: Arc<Notify>, closing: CancellationToken) {
        let forward = async {
            let mut is_stuck = false;
            loop {
                let forwarded = self.forward_all().await;
                if let Err(error) = &forwarded
                    && !is_stuck
                {
                    tracing::warn!(%error, "genuine bodies that are not events wait in the spool: the quarantine takes none");
                }
                is_stuck = forwarded.is_err();
                // There are few of them, so the failed ones are simply tried again.
                let _ = timeout(AGAIN_MAX, kept.notified()).await;
            }
        };
        closing.run_until_cancelled(forward).await;
    }

    /// Forwards every body once, and returns how many were taken. Bodies that are refused keep
    /// back no others.
    pub(crate) async fn forward_all(&self) -> Result<u64, QueueError> {
        let mut count = 0;
        let mut failed = None;
        let mut after = 0;
        loop {
            let bodies = self.spool.bodies(after, BODIES).await?;
            let Some(last) = bodies.last().map(|body| body.id) else {
                break;
            };
            after = last;
            let before = count;
            for body in bodies {
                let id = body.id;
                match self.forward(body).await {
                    Ok(()) => {
                        self.spool.remove_body(id).await?;
                        count += 1;
                    }
                    Err(error) => {
                        failed.get_or_insert(error);
                    }
                }
            }
            // A queue that is away is not asked for each of many bodies.
            if count == before && matches!(failed, Some(QueueError::Unavailable { .. })) {
                break;
            }
        }
        failed.map_or(Ok(count), Err)
    }

    async fn forward(&self, body: Quarantined) -> Result<(), QueueError> {
        let Some(overflow) = self.overflow.get() else {
            return self.queue.quarantine(body).await;
        };
        match self.queue.quarantine(body.clone()).await {
            Err(QueueError::Full) => {}
            decided => return decided,
        }
        self.queue
            .capture_rejected(overflow.rejected(&body))
            .await?;
        overflow.stored();
        Ok(())
    }
}
