//! The console: pages for people, over the operator's service.
//!
//! ```text
//! browser ─▶ listener ─▶ checks ─▶ session ─▶ page ─▶ CallerService ─▶ Operator
//!            TLS,        host,     who         HTML    roles by the      bounds,
//!            permits     origin    it is               table of gRPC     audit log
//! ```
//!
//! A page shows what the operator's API answers to the person's own roles, and changes nothing
//! by itself. It is plain HTML that needs no script. Whatever an event, a handler or a caller
//! wrote is shown as text.
//!
//! Start reading at [`ConsoleServer`], then `router.rs`, which has every path.

mod listener;
mod server;

mod checks;
mod hosts;
mod login_limit;
mod router;
mod sessions;
mod signed_in;

mod live;

mod api;
mod assets;
mod command_line;
mod compress;
mod layout;
mod pages;
mod params;
mod reply;
mod site;
mod text;

pub use crate::listener::ConsoleServer;
pub use crate::sessions::SessionTimes;
pub use crate::site::Site;
