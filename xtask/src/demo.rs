//! `cargo xtask demo`: the demo of the product, or of a cluster.

use std::process::Command;

use crate::{build, cargo, target};

/// Builds the product and runs its demo, or that of a cluster.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    if args.iter().any(|arg| arg == "--cluster") {
        return cluster(args);
    }
    // The program that `cargo xtask` starts: it does not wait for this one.
    crate::run(cargo(&["run", "--quiet", "--package", "xtask-start", "--", "demo"]).args(args))
}

/// Runs the demo on three NATS servers, two gateways and two dispatchers, which are killed in
/// turn.
fn cluster(args: &[String]) -> anyhow::Result<()> {
    let rest: Vec<_> = args
        .iter()
        .filter(|arg| *arg != "--cluster" && *arg != "--once")
        .collect();
    anyhow::ensure!(
        rest.is_empty(),
        "the cluster's demo takes no other arguments"
    );
    build(&["--package", "e2e", "--bins"])?;
    println!("NATS server {}\n", nats_server::find(&target())?.display());
    let once = args.iter().filter(|arg| *arg == "--once");
    crate::run(Command::new(target().join("debug/cluster-demo")).args(once))
}
