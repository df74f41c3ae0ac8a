//! The queue in one SQLite file: nothing to install, and one fsync for all callers that wait.
//!
//! ```text
//! publish ─┐                       ┌─ tail reader ─▶ route's buffer ─▶ next ─┐
//! settle  ─┼─▶ jobs ─▶ writer ─▶ file                                        │
//! claim   ─┘   (one transaction and one fsync a group)◀──────────────────────┘
//! ```
//!
//! One thread writes and one reads; callers wait for them without blocking. A route is a cursor,
//! and the rows of its deliveries that are in flight or waiting. Other processes may read the
//! file, and redrive, beside a running process ([`SqliteStores`]); only one may serve it
//! ([`Embedded::open`] takes a lock).
//!
//! Start reading at [`Embedded::open`], then `writing/writer.rs`.

mod embedded;
mod options;
mod shared;

mod file;
mod reading;
mod stores;
mod writing;

pub use crate::embedded::Embedded;
pub use crate::options::{Options, Retention};
pub use crate::stores::SqliteStores;
pub use crate::stores::backup::{BackupReport, backup};
pub use crate::stores::salvage::{SalvageReport, salvage};
pub use sqlite_file::{CopyError, OpenError};
