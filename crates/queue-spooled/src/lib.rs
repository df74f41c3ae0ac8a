//! An intake with a spool before a queue: an event is safe on this machine's disk before the
//! queue elsewhere is asked, and stays there until it is confirmed.
//!
//! ```text
//! publish ─fsync─▶ spool ─▶ lane ─▶ queue ─acknowledged─▶ spool
//!    ▲                       (in order)                     │ `keep` later
//!    └── answered: at once, or when the queue has it        ▼
//!                                        read back: there? ─yes─▶ removed
//!                                                          └no──▶ given again, marked
//! ```
//!
//! So a queue that is away delays no sender, and a queue that forgets events which it
//! acknowledged gets them again.
//!
//! Start reading at [`Spooled::open`], then `forward.rs`.

mod spooled;

mod confirm;
mod drain;
mod forward;
mod forward_bodies;
mod options;
mod report;
mod salvage;
mod store;

pub use crate::drain::{DrainError, DrainReport, drain};
pub use crate::options::Options;
pub use crate::spooled::Spooled;
pub use crate::store::{
    AcknowledgedRow, OnStored, Spool, SpoolState, StoredRow, UnconfirmedRow, backup, spool_state,
};
pub use sqlite_file::OpenError;
