//! Says again and again how far the spool is drained: who compares Fluent's log with what
//! came must not take for lost what is only on its way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::store::DamagedSpool;
use event_model::{Clock, Timestamp};
use queue::{QueueError, SpoolMark, Upstream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::aside::{files_set_aside, take_over_patiently};
use crate::store::File;

/// How often it is said.
const EVERY: Duration = Duration::from_secs(5);

/// How long an event may be under way from its last byte to the spool: longer than a
/// gateway tries to make it durable.
const ON_THE_WAY: Duration = Duration::from_secs(10);

/// How long the last word may take.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Who says it.
#[derive(Debug)]
pub(crate) struct Reporting {
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    pub(crate) queue: Arc<dyn Upstream>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Reporting {
    pub(crate) async fn run(self: Arc<Self>, closing: CancellationToken) {
        let mut is_said = true;
        while !closing.is_cancelled() {
            let said = closing.run_until_cancelled(self.say(false)).await.unwrap_or(Ok(()));
            match said {
                // Once for each time it begins to fail: the queue being away is said elsewhere.
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

    /// That nothing is left, if nothing is.
    pub(crate) async fn last_word(&self) {
        let _ = timeout(LAST_WORD, self.say(true)).await;
    }

    async fn say(&self, is_closing: bool) -> Result<(), QueueError> {
        let (now, path) = (self.clock.now(), self.path.clone());
        let looking = tokio::task::spawn_blocking(move || crate::store::spool_sent_up_to(&path, now));
        let looked =
            looking.await.map_err(|error| QueueError::unavailable("looking into the spool", error))?;
        let (sent_up_to, is_empty) = match looked? {
            // Files that are being taken over hold what came at any time.
            _ if !files_set_aside(&self.path).is_empty() => (Timestamp::UNIX_EPOCH, false),
            Some(found) => found,
            // What was said last holds.
            None => return Ok(()),
        };
        let drained_to = sent_up_to.saturating_sub(ON_THE_WAY).unwrap_or(Timestamp::MIN);
        let mark = SpoolMark { host: host(), drained_to, is_closed: is_closing && is_empty };
        self.queue.note_spool(&self.id, &mark).await
    }
}

/// Takes over a file that was set aside, and says that nothing more comes from it.
pub(crate) async fn take_over_whole(path: &Path, spool: &File, queue: &dyn Upstream, clock: &dyn Clock) {
    take_over_patiently(path, spool, queue).await;
    let Some(id) = DamagedSpool::open(path).ok().and_then(|old| old.id()) else {
        let file = path.display();
        return tracing::warn!(%file, "taken over, and its id can't be read: `fluent-webhooks spool list` may show one that nobody drains, and `spool forget` ends that");
    };
    let mark = SpoolMark { host: host(), drained_to: clock.now(), is_closed: true };
    if let Err(error) = queue.note_spool(&id, &mark).await {
        tracing::warn!(%error, id, "a spool that was taken over counts as one that is not drained: `fluent-webhooks spool forget` ends that");
    }
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
