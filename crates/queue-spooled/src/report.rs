//! Regular reports on how far the spool is drained: a comparison with Fluent's log must not take
//! events for lost that are only on their way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::store::DamagedSpool;
use event_model::{Clock, Timestamp};
use queue::{QueueError, SpoolWatermark, Upstream};
use sqlite_file::FileLocation;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::salvage::{damaged_files, salvage_with_retry};
use crate::store::File;

/// Interval between two reports.
const EVERY: Duration = Duration::from_secs(5);

/// Longest time that an event may take from its last byte to the spool: longer than a gateway
/// tries to make it durable.
const ON_THE_WAY: Duration = Duration::from_secs(10);

/// Longest time that the final report may take.
const LAST_WORD: Duration = Duration::from_secs(2);

/// The reporter of one spool.
#[derive(Debug)]
pub(crate) struct SpoolReporter {
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    pub(crate) place: Arc<FileLocation>,
    pub(crate) queue: Arc<dyn Upstream>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl SpoolReporter {
    pub(crate) async fn run(self: Arc<Self>, closing: CancellationToken) {
        let mut is_said = true;
        while !closing.is_cancelled() {
            let said = closing
                .run_until_cancelled(self.say(false))
                .await
                .unwrap_or(Ok(()));
            match said {
                // Logged once each time reports begin to fail, since other code reports that the
                // queue is away.
                Err(error) if is_said => {
                    tracing::warn!(%error, "nobody can see how far the spool is drained: what is missing can't be reconciled");
                    is_said = false;
                }
                Err(_) => {}
                Ok(()) => is_said = true,
            }
            closing.run_until_cancelled(sleep(EVERY)).await;
        }
    }

    /// Reports that nothing is left, if that is so.
    pub(crate) async fn final_report(&self) {
        let _ = timeout(LAST_WORD, self.say(true)).await;
    }

    async fn say(&self, is_closing: bool) -> Result<(), QueueError> {
        let now = self.clock.now();
        let path = self.path.clone();
        let looking =
            tokio::task::spawn_blocking(move || crate::store::spool_sent_up_to(&path, now));
        let looked = looking
            .await
            .map_err(|error| QueueError::unavailable("looking into the spool", error))?;
        if !self.place.is_there() {
            let why = "its file was removed, renamed or replaced while it was served";
            return Err(QueueError::unavailable("looking into the spool", why));
        }
        let (sent_up_to, is_empty) = match looked? {
            // Files that are being salvaged may have events of any time.
            _ if !damaged_files(&self.path).is_empty() => (Timestamp::UNIX_EPOCH, false),
            Some(found) => found,
            // The last report is still true.
            None => return Ok(()),
        };
        let drained_to = sent_up_to
            .saturating_sub(ON_THE_WAY)
            .unwrap_or(Timestamp::MIN);
        let mark = SpoolWatermark {
            host: host(),
            drained_to,
            is_closed: is_closing && is_empty,
        };
        self.queue.note_spool(&self.id, &mark).await
    }
}

/// Salvages a damaged file, and reports that nothing more comes from it.
pub(crate) async fn salvage_whole(
    path: &Path,
    spool: &File,
    queue: &dyn Upstream,
    clock: &dyn Clock,
) {
    salvage_with_retry(path, spool, queue).await;
    let Some(id) = DamagedSpool::open(path).ok().and_then(|old| old.id()) else {
        let file = path.display();
        return tracing::warn!(%file, "taken over, and its id can't be read: `fluent-webhooks spool list` may show one that nobody drains, and `spool forget` ends that");
    };
    let mark = SpoolWatermark {
        host: host(),
        drained_to: clock.now(),
        is_closed: true,
    };
    if let Err(error) = queue.note_spool(&id, &mark).await {
        tracing::warn!(%error, id, "a spool that was taken over counts as one that is not drained: `fluent-webhooks spool forget` ends that");
    }
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
