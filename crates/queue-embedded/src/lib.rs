//! The queue in one SQLite file: nothing to install, one fsync for everybody
//! who waits.
//!
//! ```text
//! publish ─┐                       ┌─ tail reader ─▶ route's buffer ─▶ next ─┐
//! settle  ─┼─▶ jobs ─▶ writer ─▶ file                                        │
//! claim   ─┘   (one transaction and one fsync a group)◀──────────────────────┘
//! ```
//!
//! One thread writes and one reads; everybody else waits for them without
//! blocking. A route is a cursor and the rows of what it has in flight or
//! waiting. Other processes may read the file, and redrive, beside a running
//! service ([`Beside`]); only one may serve it ([`Embedded::open`] takes a
//! lock).
//!
//! Start reading at [`Embedded::open`], then `writer.rs`.

mod door;
mod embedded;
mod options;

pub(crate) mod writer;

mod claim;
mod publish;
mod settle;
mod subscribe;

mod consumer;
mod feeder;
mod route;
mod shared;

mod housekeeping;
mod retention;

mod beside;
mod history;
mod letters;
mod quarantined;
mod salvage;

mod failure;
mod rows;
mod schema;

pub use crate::beside::Beside;
pub use crate::door::OpenError;
pub use crate::embedded::Embedded;
pub use crate::options::{Options, Retention};
pub use crate::salvage::{Salvaged, salvage};
