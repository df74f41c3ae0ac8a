//! Salvage of quarantined spool files: everything that can be read of them is stored in the
//! current spool, and forwarded from there.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::store::DamagedSpool;
use event_model::Event;
use queue::{Quarantined, QueueError, Upstream};

use crate::forward::settled;
use crate::store::File;

/// Suffix of a file beside a damaged one, which says that everything of it was salvaged.
const DONE: &str = "-forwarded";

/// Delay after which an event is tried again that neither the spool nor the queue has stored, and
/// delay before a file that can't be read is tried again.
const AGAIN: Duration = Duration::from_secs(1);
const MUCH_LATER: Duration = Duration::from_mins(1);

/// Damaged files beside the spool at `path` that were not yet salvaged.
///
/// If the path is a link, they are beside the file itself; an older version left them beside the
/// link.
pub(crate) fn damaged_files(path: &Path) -> Vec<PathBuf> {
    let mut found = set_aside_beside(path);
    if let Ok(real) = path.canonicalize() {
        let known: Vec<_> = found
            .iter()
            .filter_map(|path| path.canonicalize().ok())
            .collect();
        found.extend(
            set_aside_beside(&real)
                .into_iter()
                .filter(|path| !known.contains(path)),
        );
    }
    found
}

fn set_aside_beside(path: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Vec::new();
    };
    let begins = format!("{}.damaged-", name.to_string_lossy());
    let is_one = |found: &str| {
        found
            .strip_prefix(&begins)
            .is_some_and(|stamp| stamp.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    let found =
        names.filter(|found| is_one(found) && !folder.join(format!("{found}{DONE}")).exists());
    found.map(|found| folder.join(found)).collect()
}

/// Salvages a file, and tries again until it can be read.
pub(crate) async fn salvage_with_retry(path: &Path, spool: &File, queue: &dyn Upstream) {
    while let Err(error) = salvage(path, spool, queue).await {
        tracing::error!(%error, file = %path.display(), "the spool that was set aside is not taken over yet");
        tokio::time::sleep(MUCH_LATER).await;
    }
}

/// Stores everything that can be read of a damaged file, row by row, and returns the number of
/// rows that could not be read. The file stays as it is; an event that the spool or the queue has
/// already is not stored twice.
pub(crate) async fn salvage(
    path: &Path,
    spool: &File,
    queue: &dyn Upstream,
) -> Result<u64, QueueError> {
    let (old, last) = {
        let old = DamagedSpool::open(path)?;
        let last = old.last()?;
        (Mutex::new(old), last)
    };
    // Skips removed rows at once: in a file that was used for long, most rows are gone.
    let read = |row| {
        let old = old.lock().unwrap_or_else(PoisonError::into_inner);
        let row = old.next(row);
        (row, old.event(row))
    };
    let mut events = 0_u64;
    let mut lost = 0;
    let mut next = 1;
    while next <= last {
        let (row, found) = read(next);
        next = row + 1;
        let kept = match found {
            Ok(None) => continue,
            Ok(Some(event)) => keep(spool, queue, event).await,
            Err(error) => Err(error),
        };
        match kept {
            Ok(()) => events += 1,
            Err(QueueError::Closed) => return Err(QueueError::Closed),
            Err(error) => {
                tracing::error!(%error, row, file = %path.display(), "a row that was set aside can't be taken over");
                lost += 1;
            }
        }
        tokio::task::yield_now().await;
    }
    let locked = || old.lock().unwrap_or_else(PoisonError::into_inner);
    let mut bodies = locked().bodies();
    let mut kept = 0_u64;
    loop {
        // The lock must not be held while a body is written.
        let next = locked().next_body(&mut bodies);
        let Some(body) = next else { break };
        keep_body(spool, queue, body).await?;
        kept += 1;
    }
    lost += bodies.unreadable;
    let done = private_files::write(Path::new(&format!("{}{DONE}", path.display())), "");
    done.map_err(|error| QueueError::unavailable("noting that a spool was taken over", error))?;
    tracing::warn!(events, bodies = kept, lost, file = %path.display(), "what could be read of the spool that was set aside was taken over");
    Ok(lost)
}

/// Stores an event in the spool or, if that has no room or no disk, in the queue.
async fn keep(spool: &File, queue: &dyn Upstream, event: Event) -> Result<(), QueueError> {
    loop {
        let kept = match spool.keep(event.clone(), None).await {
            Err(QueueError::Closed) => Err(QueueError::Closed),
            Err(_) => give(queue, &event).await,
            Ok(_) => Ok(()),
        };
        match kept {
            Err(error @ (QueueError::Full | QueueError::Unavailable { .. })) => {
                tracing::debug!(%error, "what was set aside waits");
                tokio::time::sleep(AGAIN).await;
            }
            decided => return decided,
        }
    }
}

async fn give(queue: &dyn Upstream, event: &Event) -> Result<(), QueueError> {
    let receipt = queue.publish(event.clone()).await?;
    settled(queue, event, receipt).await.map(drop)
}

async fn keep_body(
    spool: &File,
    queue: &dyn Upstream,
    body: Quarantined,
) -> Result<(), QueueError> {
    match spool.keep_body(body.clone()).await {
        Err(QueueError::Closed) => Err(QueueError::Closed),
        Err(_) => queue.quarantine(body).await,
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_set_aside_are_found_beside_the_file_and_beside_a_link_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        fs::create_dir(real.join("volume")).unwrap();
        for name in [
            "volume/spool.db",
            "volume/spool.db.damaged-1",
            "link.db.damaged-2",
            "volume/spool.db.damaged-1-wal",
        ] {
            fs::write(real.join(name), "").unwrap();
        }
        symlink("volume/spool.db", real.join("link.db")).unwrap();
        symlink("volume", real.join("folder")).unwrap();
        let found = |path: &str| damaged_files(&real.join(path));
        assert_eq!(
            found("link.db"),
            [
                real.join("link.db.damaged-2"),
                real.join("volume/spool.db.damaged-1")
            ]
        );
        assert_eq!(
            found("volume/spool.db"),
            [real.join("volume/spool.db.damaged-1")]
        );
        assert_eq!(
            found("folder/spool.db"),
            [real.join("folder/spool.db.damaged-1")]
        );
    }
}
