//! Finds what never came: compares Fluent's log of events with what was received, and
//! admits what is missing, as [`Origin::Reconciled`](event_model::Origin).
//!
//! ```text
//! window ─▶ is it known here? are all spools drained?  (window.rs)
//!    │
//!    ▼ slice by slice
//! Fluent's log ─▶ records ─▶ not among what came ─▶ Missing ─▶ admitted, or why not
//!    (log.rs)    (record.rs)     (received.rs)         │            (run.rs)
//!                                                      └─ what Fluent says of sending it
//! ```
//!
//! Fluent keeps no dead letters: what it failed to send is in its log alone. An event is
//! the same there and here by [`FluentKey`](event_model::FluentKey): account, id, name.
//!
//! Nothing is admitted twice: the bytes are written from the record in one way, so they
//! have one id; and what was reconciled before came, as far as the next comparison goes.
//!
//! Start reading at [`Reconciler::compare`].

mod error;
mod run;
mod service;

mod log;
mod received;
mod record;
mod window;

pub use crate::error::ReconcileError;
pub use crate::log::Sent;
pub use crate::run::{Gap, Missing, Reconciler, Tally, Told};
pub use crate::service::serve;
pub use crate::window::{Undrained, Window};
