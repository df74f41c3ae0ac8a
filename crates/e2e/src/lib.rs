//! The common parts of tests of the whole pipeline, demonstrations, faults and measurements: a
//! deployment of real processes, a sender that keeps account, and endpoints.
//!
//! A panic is how any of these fails.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

pub mod browser;
pub mod collector;
pub mod debian;
pub mod deployment;
pub mod ledger;
mod misbehaving;
mod not_run;
pub mod prometheus;
pub mod sink;
pub mod status;

use std::sync::LazyLock;

use simulator::KeyPair;

pub use crate::misbehaving::{Misbehaving, MisbehavingSettings};
pub use crate::not_run::{NOT_RUN_FILE, say_not_run};

/// The key pair that signs a sandbox's webhooks here.
pub static SANDBOX: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate(1024).unwrap());
