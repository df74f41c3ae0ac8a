//! Workspace chores: `cargo xtask <name>`.
//!
//! Checks that can fail are tests, so `cargo xtask test` is the whole gate and
//! there is nothing else to remember.
#![expect(clippy::print_stdout, reason = "chores speak to people")]

mod bench;
mod debug_info;
mod demo;
mod dist;
mod faults;
mod nats;
mod new_dispatcher;
mod sbom;
mod secrets;
mod test;

#[cfg(test)]
mod containers;
#[cfg(test)]
mod layers;
#[cfg(test)]
mod modules;
#[cfg(test)]
mod names;
#[cfg(test)]
mod threats;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use clap::Parser;

/// Chores of this workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Show the whole pipeline at work, on real signed webhooks
    Demo {
        /// `--cluster`: on three NATS servers, killing parts in turn; `--once` ends by itself
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run everything that must pass before a change lands
    Test {
        /// Only the steps whose names contain this
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// Measure speed beside its floors
    Bench {
        /// Passed on: `--json`, `--quick`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run NATS servers on this machine
    Nats(nats::Args),
    /// Inject faults into a cluster on this machine, at random, and count what was lost
    Faults {
        /// Passed on: `--minutes N`, `--seed S`, `--json`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Write throw-away secrets, to try docker-compose.yml with
    Secrets,
    /// Build release binaries and images, stage by stage
    Dist(dist::Args),
    /// Make a crate for one more kind of destination, ready to build
    NewDispatcher(new_dispatcher::Args),
    /// Write generated files anew: the settings' JSON Schema, the wire contract's code
    Codegen {
        /// Also make today's contract the released one, which later ones must not break
        #[arg(long)]
        release: bool,
    },
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Demo { args } => demo::run(&args),
        Task::Test { only } => test::run_steps(only.as_deref()),
        Task::Bench { args } => bench::run(&args),
        Task::Nats(args) => nats::run(args),
        Task::Faults { args } => faults::run(&args),
        Task::Secrets => secrets::run(),
        Task::Dist(args) => dist::run(&args),
        Task::NewDispatcher(args) => new_dispatcher::run(&args),
        Task::Codegen { release } => codegen(release),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nfailed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn codegen(release: bool) -> anyhow::Result<()> {
    // The code of another contract or generator might not compile.
    std::fs::write(
        root().join("crates/proto/src/generated/fluent.webhooks.v1.rs"),
        "",
    )?;
    let mut contract = cargo(&["test", "--quiet", "--package", "fluent-proto"]);
    contract.env("UPDATE_EXPECT", "1");
    if release {
        contract.env("RELEASE_CONTRACT", "1");
    }
    run(&mut contract)?;
    let mut test = cargo(&[
        "test",
        "--quiet",
        "--package",
        "fluent-webhooks",
        "committed_schema",
    ]);
    run(test.env("UPDATE_EXPECT", "1"))
}

/// The workspace's folder. `cargo run` names it, since a program in a shared target folder may be
/// built from another checkout.
fn root() -> PathBuf {
    let manifest =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&manifest).join("..")
}

/// The folder that everything is built into, which `CARGO_TARGET_DIR` may name.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A command of the running cargo, in the workspace's folder.
fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(args).current_dir(root());
    command
}

/// Builds something, with cargo's own progress. That is on standard error, since the output of what
/// is built may be for a machine.
fn build(args: &[&str]) -> anyhow::Result<()> {
    run(cargo(&["build"]).args(args))
}

/// Runs a command. Fails if the command fails.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("starting {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}
