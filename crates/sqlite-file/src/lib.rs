//! A SQLite file that one process serves: opened, locked, written in groups with one fsync each,
//! and quarantined if it can't be trusted.
//!
//! ```text
//! job ─┐                 ┌─ one transaction,     ┌─ each is told
//! job ─┼─▶ Inbox ─▶ Writer │  one fsync a group ─▶ │
//! job ─┘                 └─ housekeeping between └─ what failed: Failure, Status
//! ```
//!
//! The content of a file is its owner's: the queue's (`queue-embedded`) or the spool's
//! (`queue-spooled`). The way to deal with a full, hung, failing or removed disk is the same for
//! both, and is here.
//!
//! Start reading at [`open()`], then [`Writer`].

mod connection;
mod copy;
mod error;
mod failure;
mod held_file;
mod inbox;
mod kind;
mod network;
mod open;
mod origin;
mod paths;
mod quarantine_file;
mod references;
mod status;
mod wal;
mod writer;

pub mod quarantine;
pub mod rows;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use crate::connection::{
    BUSY, READ_WITHIN, connect, connect_to_read, end_after, meta, set_meta, small_cache, used_bytes,
};
pub use crate::copy::{CopyError, copy};
pub use crate::error::OpenError;
pub use crate::failure::{Failure, reading};
pub use crate::held_file::{FileLocation, HeldFile};
pub use crate::inbox::{Inbox, Job, JobReceiver, Jobs, inbox};
pub use crate::kind::FileKind;
pub use crate::open::{OpenedFile, open, open_beside};
pub use crate::origin::FileOrigin;
pub use crate::paths::beside;
pub use crate::quarantine_file::last_quarantined;
pub use crate::references::{digest, prefixes};
pub use crate::status::{FileStatus, Messages, PATIENCE, PanicGuard, Waiting};
pub use crate::wal::{Log, beyond_a_checkpoint};
pub use crate::writer::{Owner, Writer};

/// Locks `mutex`. Our critical sections do not panic; if one did, its data is still whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
