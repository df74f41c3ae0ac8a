//! `cargo xtask faults`: faults in a cluster, at random.

use std::process::Command;

use crate::{build, target};

/// Builds everything and injects faults; see `crates/e2e/src/bin/faults.rs`.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    build(&["--package", "e2e", "--bins"])?;
    crate::run(Command::new(target().join("debug/faults")).args(args))
}
