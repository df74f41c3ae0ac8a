//! Several services on real NATS servers.

mod rights;
mod services;
mod surviving;
