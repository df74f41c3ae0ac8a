//! A Fluent of our own: for the demo, the tests, and for trying an
//! installation without a Fluent account.
//!
//! It makes key pairs as Fluent has them, writes the events that Fluent sends,
//! signs them in both ways, and sends them with Fluent's retries. It answers Fluent's
//! API, over a little world of orders (module [`api`]). It shares no
//! code with the verifier: what both agree on is the format.

pub mod api;
mod events;
mod keys;
mod presign;
mod send;

pub use crate::events::{Event, Events, Shape};
pub use crate::keys::{KeyPair, Signed};
pub use crate::presign::presign;
pub use crate::send::{Answer, Attempted, Retry, Schedule, Sender};
