//! Empties the spool of a gateway that is gone.

use std::path::Path;
use std::sync::Arc;

use event_model::{Clock, Timestamp};
use queue::{EventQueue, QueueError};
use queue_embedded::{Acknowledged, SpoolState};

use crate::confirm::Confirming;
use crate::forward::{forward_kept_bodies, settled};
use crate::spooled::{File, OpenError};

/// What was brought over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Events that the queue had never acknowledged.
    pub sent: u64,
    /// Events that it had acknowledged, and has.
    pub confirmed: u64,
    /// Events that it had acknowledged, and has lost: given again.
    pub refed: u64,
    /// Bodies that are not events.
    pub quarantined: u64,
    /// Rows that stay: damaged, or too large for the queue.
    pub left: u64,
}

/// Gives `queue` everything that the spool at `path` holds, and reads it back.
/// The file stays, empty but for what can't be given.
pub async fn drain(
    path: &Path,
    queue: Arc<dyn EventQueue>,
    clock: Arc<dyn Clock>,
) -> Result<Drained, DrainError> {
    let spool = Arc::new(File::open(path, u64::MAX, Arc::clone(&clock), Box::new(|_, _, _| {}))?);
    if let Some(aside) = spool.set_aside() {
        // It was damaged, and is read as it is.
        return Ok(drain_file(aside, &*queue).await?);
    }
    let mut drained = Drained { sent: send_unsent(&spool, &*queue).await?, ..Drained::default() };
    drained.quarantined = forward_kept_bodies(&spool, &*queue).await?;
    let horizon = queue.horizon().await?;
    let confirming = Confirming { spool: Arc::clone(&spool), queue, clock, keep: std::time::Duration::ZERO };
    // What was given again is read back the second time.
    for _ in 0..2 {
        let confirmed = confirming.confirm(Timestamp::MAX, &horizon).await?;
        drained.confirmed += confirmed.held;
        drained.refed += confirmed.refed;
        spool.state().await?;
    }
    let SpoolState { unsent, unconfirmed, set_aside, quarantined, .. } = spool.state().await?;
    drained.left = unsent + unconfirmed + set_aside + quarantined;
    spool.close().await;
    Ok(drained)
}

/// Why a spool was not emptied.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// Its file can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The queue, or the file, failed on the way.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

async fn send_unsent(spool: &File, queue: &dyn EventQueue) -> Result<u64, QueueError> {
    let (mut after, mut count) = (0, 0);
    loop {
        let rows = spool.unsent(0, 1, after, 256).await?;
        let Some((last, _)) = rows.last() else { return Ok(count) };
        after = *last;
        for (row, event) in rows {
            match send_one(queue, &event).await {
                Ok(at) => spool.acknowledged(vec![Acknowledged { row, ..at }]),
                Err(QueueError::TooLarge) => spool.put_aside(row).await?,
                Err(error) => return Err(error),
            }
            count += 1;
        }
    }
}

async fn send_one(queue: &dyn EventQueue, event: &event_model::Event) -> Result<Acknowledged, QueueError> {
    let receipt = queue.publish(event.clone()).await?;
    let receipt = settled(queue, event, receipt).await?;
    Ok(Acknowledged { row: 0, epoch: receipt.epoch, position: receipt.position })
}

/// Gives `queue` whatever can be read of a file that was set aside. It stays as
/// it is; what the queue has already it does not store twice.
pub(crate) async fn drain_file(path: &Path, queue: &dyn EventQueue) -> Result<Drained, QueueError> {
    let mut drained = Drained::default();
    let mut after = 0;
    loop {
        match queue_embedded::read_spool(path, after) {
            Ok(rows) if rows.is_empty() => break,
            Ok(rows) => {
                for (row, event) in rows {
                    after = row;
                    while let Err(error) = send_one(queue, &event).await {
                        tracing::debug!(%error, "what was set aside waits for the queue");
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    }
                    drained.sent += 1;
                }
            }
            Err(error) => {
                tracing::error!(%error, file = %path.display(), "the rest of a spool that was set aside can't be read");
                drained.left += 1;
                break;
            }
        }
    }
    tracing::warn!(sent = drained.sent, file = %path.display(), "what could be read of the spool that was set aside was forwarded");
    Ok(drained)
}
