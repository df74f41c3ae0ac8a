//! The gRPC listener and client that all parts of the product share.
//!
//! ```text
//! socket ─▶ GrpcServer: TLS, bounds ─▶ Access: token or certificate ─▶ role of the method ─▶ service
//! ```
//!
//! Every method of the contract has its role in one table ([`Access`]); a method
//! without one can't be called.
//!
//! Start reading at [`GrpcServer`] and [`Access`]; [`Target`] is the caller's side.

mod server;

mod access;
mod admission;
mod caller;
mod caller_service;
mod socket;
mod tokens;

mod target;

mod conventions;
mod event;
mod time;

/// Longest explanation from a peer, in bytes, that is stored with an attempt.
pub const MAX_DETAIL: usize = 512;

pub use crate::access::Access;
pub use crate::admission::UnknownTimes;
pub use crate::caller::{Caller, CallerOrigin};
pub use crate::caller_service::CallerService;
pub use crate::conventions::code_name;
pub use crate::event::{
    EventDecodeError, delivery, enriched, enriched_of, event, restore, without_body,
};
pub use crate::server::{GrpcServer, MAX_MESSAGE, Routes};
pub use crate::target::{Target, TargetError, TlsTarget, bearer};
pub use crate::time::{duration, duration_of, timestamp, timestamp_of};
pub use crate::tokens::{TokenDigest, Tokens};
