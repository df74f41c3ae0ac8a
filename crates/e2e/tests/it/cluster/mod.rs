//! Several services on real NATS servers.

mod power;
mod rights;
mod services;
mod surviving;
