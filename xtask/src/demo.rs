//! `cargo xtask demo`: the demo of the product, or of a cluster.

use std::process::Command;

use crate::{cargo, root, target};

/// Builds the product and runs its demo, or that of a cluster.
pub(crate) fn run(args: &[String]) -> anyhow::Result<()> {
    println!("Building (a few minutes the first time) ...");
    if args.iter().any(|arg| arg == "--cluster") {
        return cluster(args);
    }
    crate::run(&mut cargo(&[
        "build",
        "--quiet",
        "--package",
        "fluent-webhooks",
    ]))?;
    let program = target().join("debug/fluent-webhooks");
    crate::run(
        Command::new(program)
            .arg("demo")
            .args(args)
            .current_dir(root()),
    )
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
    crate::run(&mut cargo(&[
        "build",
        "--quiet",
        "--package",
        "e2e",
        "--bins",
    ]))?;
    println!("NATS server {}\n", nats_server::find(&target())?.display());
    crate::run(&mut Command::new(target().join("debug/cluster-demo")))
}
