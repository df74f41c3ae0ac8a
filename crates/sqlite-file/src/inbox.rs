//! What is handed in to be written, and how.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use queue::QueueError;
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::status::Status;

/// A kind of job: what its jobs write to.
pub trait Jobs: 'static {
    /// The transaction, with what else the jobs of a group have in common.
    type Store<'w>;
}

/// Something to be written.
pub trait Job<J: Jobs>: Send {
    /// Writes within the group's transaction. An error of SQLite fails the whole
    /// group, of which each job is then tried by itself; an answer of another kind
    /// is kept for [`Job::finish`].
    ///
    /// # Errors
    /// What SQLite says.
    fn apply(&mut self, store: &mut J::Store<'_>) -> rusqlite::Result<()>;

    /// Whether a reader that follows the file may find something new, after this was applied.
    fn wakes_reader(&self) -> bool {
        true
    }

    /// Whether nobody waits for this any more, so that it must not be written: they
    /// were told that it was not.
    fn is_given_up(&self) -> bool {
        false
    }

    /// Whether it answers for something that must be found later: then it is not told of a
    /// commit into a file that is no longer at its place. What only moves is.
    fn is_a_promise(&self) -> bool {
        false
    }

    /// Whether it may wait a little for a group that is written anyway. It is tried again until
    /// it is written or the file is closed.
    fn can_wait(&self) -> bool {
        false
    }

    /// The group was rolled back: nothing counts that was applied.
    fn undo(&mut self) {}

    /// The group was committed: what was applied is in the file, whether or not that is found
    /// at its place later.
    fn committed(&mut self) {}

    /// Tells whoever waits, after the commit or instead of it.
    fn finish(self: Box<Self>, committed: Result<(), QueueError>);
}

pub(crate) type Look = Box<dyn FnOnce(&Connection) + Send>;

pub(crate) enum Message<J: Jobs> {
    /// Write this.
    Job(Box<dyn Job<J>>),
    /// Read, once everything before this is written.
    Look(Look),
    /// Answer everything before this, then end.
    Close(oneshot::Sender<()>),
}

/// Where jobs are handed in.
pub struct Inbox<J: Jobs> {
    sender: Sender<Message<J>>,
    status: Arc<Status>,
}

/// Where the [`crate::Writer`] takes them out.
pub struct JobReceiver<J: Jobs> {
    pub(crate) messages: Receiver<Message<J>>,
    pub(crate) status: Arc<Status>,
}

/// Makes both ends. `status` is what the writer tells everybody of itself.
pub fn inbox<J: Jobs>(status: Arc<Status>) -> (Inbox<J>, JobReceiver<J>) {
    let (sender, messages) = channel();
    let inbox = Inbox { sender, status: Arc::clone(&status) };
    (inbox, JobReceiver { messages, status })
}

impl<J: Jobs> Inbox<J> {
    /// Hands `job` to the writer. The channel has no bound of its own: every kind of job is
    /// bounded by those who wait for it, or by [`Status::begin_waiting`]. After the writer's end
    /// jobs are dropped, which their senders read as [`QueueError::Closed`].
    pub fn submit(&self, job: impl Job<J> + 'static) {
        let _ = self.sender.send(Message::Job(Box::new(job)));
    }

    /// Reads on the writer's connection, once everything is written that was handed in before:
    /// also in a file that has failed or is gone. Dropped unread if the writer has ended.
    pub fn look(&self, read: impl FnOnce(&Connection) + Send + 'static) {
        let _ = self.sender.send(Message::Look(Box::new(read)));
    }

    /// Has everything before this written, and the writer end. What is answered says that.
    pub fn close(&self) -> oneshot::Receiver<()> {
        let (reply, closed) = oneshot::channel();
        let _ = self.sender.send(Message::Close(reply));
        closed
    }

    /// How the writer does.
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }
}

impl<J: Jobs> fmt::Debug for Inbox<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("status", &self.status).finish_non_exhaustive()
    }
}

impl<J: Jobs> fmt::Debug for JobReceiver<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobReceiver").field("status", &self.status).finish_non_exhaustive()
    }
}
