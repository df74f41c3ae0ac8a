//! Finds what never came: compares Fluent's log of events with what was received, and
//! admits what is missing, as [`Origin::Reconciled`](event_model::Origin).
//!
//! ```text
//! window ─▶ is it known here? are all spools drained?  (window.rs)
//!    │
//!    ▼ hour by hour, some together (run.rs)
//! Fluent's log ─▶ keys ─▶ struck out by what came ─▶ the rest, read again ─▶ MissingEvent
//!    (fluent_log.rs)        (received.rs)              (record.rs)             │
//!                                                                              ▼
//!                          marked ─▶ a last look at what came ─▶ admitted, or why not
//!                                                                   (admission.rs)
//! ```
//!
//! Fluent keeps no dead letters: an event that it failed to send is only in its log. An event is
//! the same there and here by [`FluentKey`](event_model::FluentKey): account, id, name.
//!
//! Nothing is admitted twice: the bytes are written from the record in one way, so they
//! have one id; and the next comparison counts a reconciled event as received.
//!
//! Start reading at [`Reconciler::compare`].

mod error;
mod report;
mod run;
mod service;

mod admission;
mod comparison;
mod fluent_log;
mod one_form;
mod received;
mod record;
mod window;

pub use crate::comparison::Mode;
pub use crate::error::{ReconcileError, Undrained};
pub use crate::fluent_log::SendStatus;
pub use crate::report::{Admission, MissingEvent, Observer, Summary};
pub use crate::run::Reconciler;
pub use crate::service::serve;
pub use crate::window::Window;
