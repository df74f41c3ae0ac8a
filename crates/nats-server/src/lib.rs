//! Runs real NATS servers, one or a cluster, for tests, measurements and
//! development. Nothing that is deployed uses it.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let mut cluster = nats_server::Cluster::start(3, &nats_server::Options::default())?;
//! println!("{}", cluster.urls().join(","));
//! cluster.servers[0].kill();
//! cluster.servers[0].start()?;
//! # Ok(()) }
//! ```
//!
//! Start reading at [`Cluster::start`]. `binary.rs` finds or fetches the program.

mod binary;
mod certificates;
mod cluster;
mod port;
mod server;

pub use crate::binary::{VERSION, find};
pub use crate::certificates::{Authority, ServerCertificate};
pub use crate::cluster::Cluster;
pub use crate::port::free_port;
pub use crate::server::{Options, Place, Server};
