//! Draining the spool of a gateway that is gone.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::store::{AcknowledgedRow, DamagedSpool, SpoolState};
use event_model::{Clock, Timestamp};
use queue::{QueueError, Upstream};

use crate::confirm::PresenceCheck;
use crate::forward::settled;
use crate::forward_bodies::{BodyForwarder, OverflowHook};
use crate::salvage::{damaged_files, salvage};
use crate::store::File;
use sqlite_file::OpenError;

/// Result of draining a spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Number of events that the queue had never acknowledged.
    pub sent: u64,
    /// Number of events that the queue had acknowledged, and has.
    pub confirmed: u64,
    /// Number of events that the queue had acknowledged and lost, and that were sent again.
    pub refed: u64,
    /// Number of bodies that are not events.
    pub quarantined: u64,
    /// Number of rows that stay in the spool: damaged, or too large for the queue.
    pub left: u64,
    /// True if the spool still counts as one that may have events, so that comparing with
    /// Fluent's log waits for it.
    pub is_waited_for: bool,
}

/// Sends everything in the spool at `path` to `queue`, and confirms it. The file stays, empty
/// except for what can't be sent.
pub async fn drain(
    path: &Path,
    queue: Arc<dyn Upstream>,
    clock: Arc<dyn Clock>,
) -> Result<DrainReport, DrainError> {
    let spool = Arc::new(File::open(path, u64::MAX, clock, Box::new(|_, _, _| {}))?);
    // A damaged file is read as far as possible.
    let mut lost = 0;
    let asides = damaged_files(path);
    for aside in &asides {
        // A file that can't be read at all must not keep a good one from being drained.
        lost += salvage(aside, &spool, &*queue).await.unwrap_or_else(|error| {
            tracing::error!(%error, file = %aside.display(), "what was set aside can't be read");
            1
        });
    }
    spool.retry_unsendable().await?;
    let mut drained = DrainReport {
        sent: send_unsent(&spool, &*queue).await?,
        ..DrainReport::default()
    };
    let forwarder = BodyForwarder {
        spool: Arc::clone(&spool),
        queue: Arc::clone(&queue),
        // Nobody here knows how they came: a full quarantine is told to whoever drains.
        overflow: Arc::new(OverflowHook::new()),
    };
    drained.quarantined = forwarder.forward_all().await?;
    let horizon = queue.horizon().await?;
    let confirming = PresenceCheck {
        spool: Arc::clone(&spool),
        queue,
        clock: spool.clock(),
        keep: Duration::ZERO,
    };
    // Events that were sent again are confirmed the second time.
    for _ in 0..2 {
        let confirmed = confirming.confirm(Timestamp::MAX, &horizon).await?;
        drained.confirmed += confirmed.held;
        drained.refed += confirmed.refed;
        spool.state().await?;
    }
    let SpoolState {
        unsent,
        unconfirmed,
        set_aside,
        quarantined,
        ..
    } = spool.state().await?;
    drained.left = unsent + unconfirmed + set_aside + quarantined + lost;
    spool.close().await;
    drained.is_waited_for = drained.left > 0;
    if drained.left == 0 {
        let aside = asides
            .iter()
            .filter_map(|aside| DamagedSpool::open(aside).ok()?.id());
        for id in aside.chain([spool.id().to_owned()]) {
            drained.is_waited_for |= confirming.queue.forget_spool(&id).await.is_err();
        }
    }
    Ok(drained)
}

/// Reason why a spool was not drained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// Its file can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The queue or the file failed meanwhile.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

async fn send_unsent(spool: &File, queue: &dyn Upstream) -> Result<u64, QueueError> {
    let mut after = 0;
    let mut count = 0;
    loop {
        let rows = spool.unsent(0, 1, after, 256).await?;
        let Some((last, _)) = rows.last() else {
            return Ok(count);
        };
        after = *last;
        for (row, event) in rows {
            match send_one(queue, &event).await {
                Ok(at) => spool.acknowledged(vec![AcknowledgedRow { row, ..at }]),
                Err(QueueError::TooLarge) => spool.mark_unsendable(row).await?,
                Err(error) => return Err(error),
            }
            count += 1;
        }
    }
}

async fn send_one(
    queue: &dyn Upstream,
    event: &event_model::Event,
) -> Result<AcknowledgedRow, QueueError> {
    let receipt = queue.publish(event.clone()).await?;
    let receipt = settled(queue, event, receipt).await?;
    Ok(AcknowledgedRow {
        row: 0,
        epoch: receipt.epoch,
        position: receipt.position,
    })
}
