//! The queue on NATS JetStream: any number of gateways and dispatchers, on any
//! number of machines, and no coordination but the servers'.
//!
//! ```text
//! publish ─▶ FLUENT_EVENTS ─▶ a durable consumer a route ─┐
//!                                                         ├─▶ next ─▶ settle ─▶ acknowledged
//!            FLUENT_RETRIES ─▶ what is due ───────────────┘             │
//!                 ▲ schedules                                           ├─▶ FLUENT_ATTEMPTS
//!                 └──────────────── again, later ───────────────────────┤
//!                                                                       └─▶ FLUENT_DEAD
//! ```
//!
//! A delivery that waits is a message of its own, with a schedule; the one it
//! came from is acknowledged, so that waiting holds nothing up. What the server
//! counts as a redelivery is therefore always a process that crashed or hung.
//!
//! Start reading at [`JetStream::open`], then `consuming/fetcher.rs`.

mod jet_stream;
mod options;
mod servers_clock;
mod shared;

mod attempts;
mod consuming;
mod gap_notes;
mod history_outage;
mod publishing;
mod retention;
mod room;
mod route_status;
mod stores;
mod stream_monitor;
mod streams;
mod verification;

mod api;
mod connect;
mod failure;
mod message;
mod names;
mod periodic_duties;
mod presence;

pub mod cluster;

pub use crate::jet_stream::{JetStream, open_stores};
pub use crate::options::{Identity, Layout, Options, Tls};
