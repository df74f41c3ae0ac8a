//! Jobs, and the channel by which they are handed to the writer.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use queue::QueueError;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::status::FileStatus;

/// A kind of job, with the store that its jobs write to.
pub trait Jobs: 'static {
    /// The transaction, and other state that the jobs of a group share.
    type Store<'w>;
}

/// A change that is to be written.
pub trait Job<J: Jobs>: Send {
    /// Writes within the group's transaction. An error of SQLite fails the whole group, and each
    /// job of it is then tried by itself. Any other result is stored in the job for
    /// [`Job::finish`].
    ///
    /// # Errors
    /// If SQLite reports an error.
    fn apply(&mut self, store: &mut J::Store<'_>) -> rusqlite::Result<()>;

    /// Whether a reader that follows the file may find something new once this was applied.
    fn wakes_reader(&self) -> bool {
        true
    }

    /// Whether nobody waits for this any more. It must then not be written, since its callers
    /// were told that it was not.
    fn is_given_up(&self) -> bool {
        false
    }

    /// Whether this job promises that something will be found later. It is then answered with an
    /// error if the commit went into a file that is no longer in its place; other jobs are
    /// answered with success.
    fn is_a_promise(&self) -> bool {
        false
    }

    /// Whether this may wait a little for a group that is written anyway. It is tried again until
    /// it is written or the file is closed.
    fn can_wait(&self) -> bool {
        false
    }

    /// Called after the group was rolled back: nothing of what was applied counts.
    fn undo(&mut self) {}

    /// Called after the group was committed: what was applied is in the file, whether or not the
    /// file is found in its place later.
    fn committed(&mut self) {}

    /// Answers the callers, after the commit or instead of it.
    fn finish(self: Box<Self>, committed: Result<(), QueueError>);
}

pub(crate) type ReadTask = Box<dyn FnOnce(&Connection) + Send>;

pub(crate) enum Message<J: Jobs> {
    /// Write this job.
    Job(Box<dyn Job<J>>),
    /// Read, once everything before this is written.
    Look(ReadTask),
    /// Answer everything before this, and then end.
    Close(oneshot::Sender<()>),
}

/// The end of the channel where jobs are handed in.
pub struct Inbox<J: Jobs> {
    sender: Sender<Message<J>>,
    status: Arc<FileStatus>,
}

/// The end of the channel where the [`crate::Writer`] takes jobs out.
pub struct JobReceiver<J: Jobs> {
    pub(crate) messages: Receiver<Message<J>>,
    pub(crate) status: Arc<FileStatus>,
}

/// Makes both ends of a channel. `status` is what the writer reports about the file.
pub fn inbox<J: Jobs>(status: Arc<FileStatus>) -> (Inbox<J>, JobReceiver<J>) {
    let (sender, messages) = channel();
    let inbox = Inbox {
        sender,
        status: Arc::clone(&status),
    };
    (inbox, JobReceiver { messages, status })
}

impl<J: Jobs> Inbox<J> {
    /// Hands `job` to the writer. The channel itself is not bounded: jobs are bounded by the
    /// callers that wait for them, or by [`FileStatus::begin_waiting`]. After the writer has ended,
    /// jobs are dropped, which their senders see as [`QueueError::Closed`].
    pub fn submit(&self, job: impl Job<J> + 'static) {
        let _ = self.sender.send(Message::Job(Box::new(job)));
    }

    /// Reads on the writer's connection, once everything is written that was handed in before;
    /// also in a file that has failed or is gone. `read` is dropped uncalled if the writer has
    /// ended.
    pub fn read(&self, read: impl FnOnce(&Connection) + Send + 'static) {
        let _ = self.sender.send(Message::Look(Box::new(read)));
    }

    /// Makes the writer finish everything that was handed in before, and end. The receiver
    /// resolves when it has.
    pub fn close(&self) -> oneshot::Receiver<()> {
        let (reply, closed) = oneshot::channel();
        let _ = self.sender.send(Message::Close(reply));
        closed
    }

    /// Status of the file, as the writer reports it.
    pub fn status(&self) -> &Arc<FileStatus> {
        &self.status
    }
}

impl<J: Jobs> fmt::Debug for Inbox<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl<J: Jobs> fmt::Debug for JobReceiver<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobReceiver")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
