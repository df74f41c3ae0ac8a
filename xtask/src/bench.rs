//! `cargo xtask bench`: measurements.

use crate::cargo;

/// Builds for release and measures; see `crates/e2e/src/bin/bench`.
#[expect(clippy::print_stderr, reason = "its output may be for a machine")]
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    eprintln!("Building for speed (about five minutes the first time) ...");
    let build = [
        "build",
        "--release",
        "--quiet",
        "--bin",
        "pipeline",
        "--bin",
        "bench",
    ];
    crate::run(&mut cargo(&build))?;
    let bench = [
        "run",
        "--release",
        "--quiet",
        "--package",
        "e2e",
        "--bin",
        "bench",
        "--",
    ];
    crate::run(cargo(&bench).args(args))
}
