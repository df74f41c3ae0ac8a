//! `cargo xtask bench`: measurements.

use std::process::Command;

use crate::{build, target};

/// Builds for release and measures; see `crates/e2e/src/bin/bench`.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    // Of one package: with others beside it, its dependencies would have other features, and running
    // it would build all of them again.
    build(&[
        "--release",
        "--package",
        "e2e",
        "--bin",
        "pipeline",
        "--bin",
        "bench",
    ])?;
    crate::run(Command::new(target().join("release/bench")).args(args))
}
