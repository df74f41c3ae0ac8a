//! `cargo xtask faults`: faults in a cluster, at random.

use std::process::Command;

use crate::{cargo, target};

/// Builds everything and injects faults; see `crates/e2e/src/bin/faults.rs`.
#[expect(clippy::print_stderr, reason = "its output may be for a machine")]
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    eprintln!("Building (a few minutes the first time) ...");
    crate::run(&mut cargo(&[
        "build",
        "--quiet",
        "--package",
        "e2e",
        "--bins",
    ]))?;
    crate::run(Command::new(target().join("debug/faults")).args(args))
}
