//! Status of a file that is being served: whether it can be written to and, if not, why.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use queue::{Impediment, QueueError};
use tokio::sync::watch;

use crate::failure::Failure;
use crate::lock;
use crate::quarantine_file::mark_corrupt;

/// Longest time of one write while the process is still ready: Fluent gives up after 14 s, and
/// another process may do better.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Largest number of bytes of bodies that wait for the writer. Callers give up before a hung disk
/// answers, but what they handed in stays in memory.
const MOST_WAITING: usize = 64 << 20;

/// Log messages about a file that can't be written to. The consequences differ by kind of file.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is the failure of that name")]
pub struct Messages {
    pub full: &'static str,
    pub gone: &'static str,
    pub refused: &'static str,
    pub busy: &'static str,
    pub broken: &'static str,
    pub panicked: &'static str,
    /// The log beside the file was removed, and what it held was written to the file.
    pub log_removed: &'static str,
    /// The file can be written to again.
    pub again: &'static str,
    /// The log grows because a reader does not end.
    pub long_log: &'static str,
}

/// Status of a file, as its writer reports it to the whole process.
#[derive(Debug)]
pub struct FileStatus {
    path: PathBuf,
    messages: &'static Messages,
    /// Why the last group was not written, if that may pass: in words that follow the file's name.
    impeded: Mutex<Option<&'static str>>,
    /// Start of the write that is under way.
    writing_since: Mutex<Option<Instant>>,
    /// Bytes of bodies that wait for the writer.
    waiting: Arc<AtomicUsize>,
    failed: watch::Sender<Option<String>>,
}

impl FileStatus {
    /// Makes the status of the file at `path`, of which no failure is known.
    pub fn new(path: &Path, messages: &'static Messages) -> Self {
        Self {
            path: path.to_owned(),
            messages,
            impeded: Mutex::default(),
            writing_since: Mutex::default(),
            waiting: Arc::default(),
            failed: watch::Sender::new(None),
        }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The log messages about the file.
    pub fn messages(&self) -> &'static Messages {
        self.messages
    }

    /// Whether something can be made durable now, as far as the disk is concerned.
    pub fn can_write(&self) -> bool {
        self.impediment("the file").is_none()
    }

    /// Why nothing can be made durable now, as far as the disk is concerned. `file` names the file
    /// for people.
    pub fn impediment(&self, file: &str) -> Option<Impediment> {
        if let Some(why) = self.failure() {
            return Some(format!("{file} can't be trusted any more ({why})").into());
        }
        let why = match *lock(&self.impeded) {
            Some(why) => why,
            None if self.is_hung() => "is on a disk that does not answer",
            None => return None,
        };
        Some(format!("{file} {why}").into())
    }

    /// The reason why nothing can be written any more, if that is so.
    pub fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// Receiver of changes of [`FileStatus::failure`].
    pub fn watch_failure(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    /// Whether the last group was not written, for a reason that may pass.
    pub(crate) fn is_impeded(&self) -> bool {
        lock(&self.impeded).is_some()
    }

    /// Whether a write has been under way for longer than [`PATIENCE`], so that nobody should
    /// wait for the disk.
    pub fn is_hung(&self) -> bool {
        lock(&self.writing_since).is_some_and(|since| since.elapsed() > PATIENCE)
    }

    pub(crate) fn begin_writing(&self) {
        *lock(&self.writing_since) = Some(Instant::now());
    }

    pub(crate) fn end_writing(&self) {
        *lock(&self.writing_since) = None;
    }

    /// Records that something was written, in a file that is in its place.
    pub(crate) fn note_written(&self) {
        if lock(&self.impeded).take().is_some() {
            tracing::info!("{}", self.messages.again);
        }
    }

    /// Reacts to a failed write: most failures pass, but a broken file is final.
    pub fn note(&self, failure: &Failure) {
        let messages = self.messages;
        match failure {
            Failure::Full if self.is_impeded_again("is on a disk that is full") => {}
            Failure::Gone if self.is_impeded_again("is not in its place any more") => {}
            Failure::Refused(_) if self.is_impeded_again("could not be written to") => {}
            Failure::Full => tracing::error!("{}", messages.full),
            Failure::Gone => tracing::error!(
                file = %self.path.display(),
                process = std::process::id(),
                "{}",
                messages.gone
            ),
            Failure::Refused(error) => tracing::error!(%error, "{}", messages.refused),
            Failure::Busy => tracing::warn!("{}", messages.busy),
            Failure::Broken(why) => {
                if self.stop_serving(why) {
                    tracing::error!(error = why, "{}", messages.broken);
                    mark_corrupt(&self.path, why);
                }
            }
        }
    }

    /// Records why a group was not written. Returns whether the one before it was not, either.
    fn is_impeded_again(&self, why: &'static str) -> bool {
        lock(&self.impeded).replace(why).is_some()
    }

    /// Ends writing in this process, without marking the file. Returns whether it was not ended
    /// before.
    pub(crate) fn stop_serving(&self, why: &str) -> bool {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert_with(|| why.to_owned());
            first
        })
    }

    /// Counts a body of this length among those that wait for the writer.
    ///
    /// # Errors
    /// If too many wait already: the disk hangs, or is slower than the bodies arrive.
    pub fn begin_waiting(&self, length: usize) -> Result<Waiting, QueueError> {
        let waiting = Waiting {
            all: Arc::clone(&self.waiting),
            length,
        };
        match self.waiting.fetch_add(length, Ordering::AcqRel) + length > MOST_WAITING {
            true => Err(QueueError::unavailable(
                "writing to the file",
                "more waits for the disk than may: it hangs, or is too slow",
            )),
            false => Ok(waiting),
        }
    }
}

/// A body that waits for the writer, until this is dropped.
#[derive(Debug)]
pub struct Waiting {
    all: Arc<AtomicUsize>,
    length: usize,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.fetch_sub(self.length, Ordering::AcqRel);
    }
}

/// Reports a panic of the thread that owns this, since callers would wait for ever otherwise.
#[derive(Debug)]
pub struct PanicGuard(pub Arc<FileStatus>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        // The file itself is not to blame: what was not committed is not in it.
        if std::thread::panicking() && self.0.stop_serving("a thread of it panicked") {
            tracing::error!("{}", self.0.messages.panicked);
        }
    }
}
