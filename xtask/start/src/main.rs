//! Starts the workspace's chores, and the demo before they are built: `cargo xtask <name>`.
//!
//! The demo is the first thing that a newcomer runs. The chores have dependencies of their own, and
//! share others with the product with other features: cargo would build a hundred crates twice, one
//! after the other. So this program needs the standard library alone, and builds what is asked for
//! with cargo's own progress.
#![expect(clippy::print_stderr, reason = "chores speak to people")]

use std::env;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

fn main() -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let workspace = Workspace::find();
    let (package, expected) = match what(&args) {
        Program::Demo => (
            "fluent-webhooks",
            "the demo, with all of the product: 4 minutes",
        ),
        Program::Chores => ("xtask", "the workspace's chores: a minute"),
    };
    match workspace.run(package, expected, &args) {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The program that does what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    /// The product has its demo in itself.
    Demo,
    Chores,
}

fn what(args: &[OsString]) -> Program {
    let is_demo = args.first().is_some_and(|name| name == "demo");
    // A cluster's demo is a chore.
    match is_demo && !args.iter().any(|arg| arg == "--cluster") {
        true => Program::Demo,
        false => Program::Chores,
    }
}

/// The workspace, and the folder that it is built into.
#[derive(Debug)]
struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Finds the workspace of the running cargo: a program in a shared target folder may be built
    /// from another checkout.
    fn find() -> Self {
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest).join("../..");
        let root = root.canonicalize().unwrap_or(root);
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Self { root, target }
    }

    /// Builds a package, and runs its program of the same name with these arguments.
    fn run(&self, package: &str, expected: &str, args: &[OsString]) -> io::Result<ExitStatus> {
        let program = self.target.join("debug").join(package);
        if !program.exists() {
            eprintln!("Building {expected} the first time, on two cores.");
        }
        let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--package", package, "--bin", package]);
        let built = build.current_dir(&self.root).status()?;
        if !built.success() {
            return Ok(built);
        }
        let mut run = Command::new(program);
        run.args(args).current_dir(&self.root);
        // As if cargo had started the chores.
        run.env("CARGO_MANIFEST_DIR", self.root.join("xtask"))
            .status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_does_not_wait_for_the_chores() {
        let what = |args: &[&str]| what(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(what(&["demo"]), Program::Demo);
        assert_eq!(what(&["demo", "--once"]), Program::Demo);
        assert_eq!(what(&["demo", "--cluster", "--once"]), Program::Chores);
        assert_eq!(what(&["test"]), Program::Chores);
        assert_eq!(what(&[]), Program::Chores);
    }
}
