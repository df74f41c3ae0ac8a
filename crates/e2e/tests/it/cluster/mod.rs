//! Several services on real NATS servers.

mod disks;
mod jobs;
mod partition;
mod power;
mod reconciling;
mod rights;
mod services;
mod shipped;
mod strangers;
mod surviving;
