//! A Fluent of our own, for the demo, the tests, and trials of an installation without a Fluent
//! account.
//!
//! It makes key pairs like Fluent's, writes the events that Fluent sends, signs them in both
//! ways, and sends them with Fluent's retries. It answers Fluent's API, with a few orders (module
//! [`api`]). It shares no code with the verifier, only the format.

pub mod api;
mod body_edit;
mod events;
mod failure;
mod keys;
mod presign;
mod send;

pub use crate::body_edit::BodyEdit;
pub use crate::events::{Event, Events, Shape};
pub use crate::failure::SendFailure;
pub use crate::keys::{KeyPair, SignedBody};
pub use crate::presign::presign;
pub use crate::send::{Answer, Attempted, OnFailure, Retry, Schedule, Sender};
