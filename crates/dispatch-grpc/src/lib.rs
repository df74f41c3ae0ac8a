//! Going out of process: a dispatcher that asks another process, and a server
//! around any dispatcher.
//!
//! ```text
//! route ─▶ Remote ─▶ Replicas: the least busy ─gRPC─▶ Server ─▶ any Dispatcher
//!            └────── failure.rs: errors there and back ──────┘   or a handler in another language
//! ```
//!
//! Start reading at [`Remote`] and [`Server`].

mod remote;
mod replicas;
mod settings;

mod server;

mod answer;
mod failure;

pub use crate::failure::{failure, status};
pub use crate::remote::Remote;
pub use crate::server::Server;
pub use crate::settings::GrpcSettings;
