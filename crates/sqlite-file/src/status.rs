//! What is known of a file that is being served: whether it can be written to, and why not.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use queue::QueueError;
use tokio::sync::watch;

use crate::failure::Failure;
use crate::lock;
use crate::quarantine_file::mark_corrupt;

/// How long one write may take before the process is no longer ready: Fluent gives up after
/// 14 s, and another process may do better.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// Bytes of bodies that wait for the writer, at most. Those who wait give up before a disk
/// that hangs answers, and what they handed in stays.
const MOST_WAITING: usize = 64 << 20;

/// What the log says of a file that can't be written to: what follows from it is another thing
/// for each kind of file.
#[derive(Debug)]
#[expect(missing_docs, reason = "each is the failure of that name")]
pub struct Messages {
    pub full: &'static str,
    pub gone: &'static str,
    pub refused: &'static str,
    pub busy: &'static str,
    pub broken: &'static str,
    pub panicked: &'static str,
    /// It can be written to again.
    pub again: &'static str,
    /// Its log grows, since somebody reads for long.
    pub long_log: &'static str,
}

/// What the writer of a file tells everybody of it.
#[derive(Debug)]
pub struct Status {
    path: PathBuf,
    messages: &'static Messages,
    /// The last group was not written, for want of room or because the file was gone.
    is_impeded: AtomicBool,
    /// Since when a group is being written.
    writing_since: Mutex<Option<Instant>>,
    /// Bytes of bodies that wait for the writer.
    waiting: Arc<AtomicUsize>,
    failed: watch::Sender<Option<String>>,
}

impl Status {
    /// Of the file at `path`, about which nothing bad is known.
    pub fn new(path: &Path, messages: &'static Messages) -> Self {
        Self {
            path: path.to_owned(),
            messages,
            is_impeded: AtomicBool::new(false),
            writing_since: Mutex::default(),
            waiting: Arc::default(),
            failed: watch::Sender::new(None),
        }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is said of the file.
    pub fn messages(&self) -> &'static Messages {
        self.messages
    }

    /// Whether something can be made durable now, as far as the disk goes.
    pub fn can_write(&self) -> bool {
        !self.is_impeded() && !self.is_hung() && self.failure().is_none()
    }

    /// Why nothing can be written any more.
    pub fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }

    /// Follows [`Status::failure`].
    pub fn watch_failure(&self) -> watch::Receiver<Option<String>> {
        self.failed.subscribe()
    }

    /// Whether the last group was not written, for a reason that may pass.
    pub(crate) fn is_impeded(&self) -> bool {
        self.is_impeded.load(Ordering::Acquire)
    }

    /// Whether the disk has not answered for so long that nobody should wait for it.
    pub fn is_hung(&self) -> bool {
        lock(&self.writing_since).is_some_and(|since| since.elapsed() > PATIENCE)
    }

    pub(crate) fn begin_writing(&self) {
        *lock(&self.writing_since) = Some(Instant::now());
    }

    pub(crate) fn end_writing(&self) {
        *lock(&self.writing_since) = None;
    }

    /// Something was written, and is where it will be found.
    pub(crate) fn note_written(&self) {
        if self.is_impeded.swap(false, Ordering::AcqRel) {
            tracing::info!("{}", self.messages.again);
        }
    }

    /// Acts on a failed write: most pass, a broken file does not.
    pub fn note(&self, failure: &Failure) {
        let messages = self.messages;
        match failure {
            Failure::Full | Failure::Gone | Failure::Refused(_)
                if self.is_impeded.swap(true, Ordering::AcqRel) => {}
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

    /// Ends the writing in this process, which says nothing against the file. Whether this is
    /// the first word of it.
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
    /// If too many do already: the disk is slower than they come, or hangs.
    pub fn begin_waiting(&self, length: usize) -> Result<Waiting, QueueError> {
        let waiting = Waiting { all: Arc::clone(&self.waiting), length };
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

/// Tells everybody if the thread that holds this panics: they would wait for ever.
#[derive(Debug)]
pub struct PanicGuard(pub Arc<Status>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        // It says nothing against the file: what was not committed is not there.
        if std::thread::panicking() && self.0.stop_serving("a thread of it panicked") {
            tracing::error!("{}", self.0.messages.panicked);
        }
    }
}
