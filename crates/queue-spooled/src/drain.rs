//! Empties the spool of a gateway that is gone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use event_model::{Clock, Timestamp};
use queue::{EventQueue, QueueError};
use queue_embedded::{Acknowledged, OldSpool, SpoolState};

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
    spool.retry_aside().await?;
    let mut drained = Drained { sent: send_unsent(&spool, &*queue).await?, ..Drained::default() };
    drained.quarantined = forward_kept_bodies(&spool, &*queue).await?;
    let horizon = queue.horizon().await?;
    let confirming = Confirming { spool: Arc::clone(&spool), queue, clock, keep: Duration::ZERO };
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

/// Beside a file that was set aside: that everything of it was forwarded.
const DONE: &str = "-forwarded";

/// Files set aside beside the spool at `path` that were not yet forwarded.
pub(crate) fn files_set_aside(path: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let begins = format!("{}.damaged-", name.to_string_lossy());
    let is_one = |found: &str| {
        found.strip_prefix(&begins).is_some_and(|stamp| stamp.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let found = names.filter(|found| is_one(found) && !folder.join(format!("{found}{DONE}")).exists());
    found.map(|found| folder.join(found)).collect()
}

/// Gives `queue` whatever can be read of a file that was set aside, row by row,
/// however long that takes. It stays as it is; what the queue has already it
/// does not store twice.
pub(crate) async fn drain_file(path: &Path, queue: &dyn EventQueue) -> Result<Drained, QueueError> {
    let mut drained = Drained::default();
    let (old, last) = {
        let old = OldSpool::open(path)?;
        let last = old.last()?;
        (Mutex::new(old), last)
    };
    let read = |row| old.lock().unwrap_or_else(PoisonError::into_inner).event(row);
    for row in 1..=last {
        match read(row) {
            Ok(None) => {}
            Ok(Some(event)) => match give(queue, &event).await? {
                true => drained.sent += 1,
                false => drained.left += 1,
            },
            Err(error) => {
                tracing::error!(%error, row, file = %path.display(), "a row that was set aside can't be read");
                drained.left += 1;
            }
        }
    }
    let bodies = old.lock().unwrap_or_else(PoisonError::into_inner).bodies();
    for body in bodies {
        queue.stores().quarantine().keep(body).await?;
        drained.quarantined += 1;
    }
    let _ = std::fs::write(format!("{}{DONE}", path.display()), "");
    tracing::warn!(?drained, file = %path.display(), "what could be read of the spool that was set aside was forwarded");
    Ok(drained)
}

/// Whether the queue took it, at last; not if it never will.
async fn give(queue: &dyn EventQueue, event: &event_model::Event) -> Result<bool, QueueError> {
    loop {
        match send_one(queue, event).await {
            Ok(_) => return Ok(true),
            Err(QueueError::TooLarge) => return Ok(false),
            Err(QueueError::Closed) => return Err(QueueError::Closed),
            Err(error) => {
                tracing::debug!(%error, "what was set aside waits for the queue");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
