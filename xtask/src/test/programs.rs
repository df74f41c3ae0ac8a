//! The tests' programs: built in one go, then run two at a time.
//!
//! Cargo runs one after the other. Most of their time is spent waiting, for servers to die
//! and for leases to end, so two together take little more than half as long.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use anyhow::{Context, bail};
use cargo_metadata::{Message, Target};

use crate::{cargo, target};

/// Programs that run at the same time. With more, too many servers would share two cores, and a
/// test must not fail because others are busy.
const AT_ONCE: usize = 2;

/// The package whose tests take longest by far: it begins first, so that the run does not end
/// with it alone.
const LONGEST: &str = "e2e";

/// Environment variables of every test.
type Variables<'a> = [(&'a str, &'a Path)];

/// A program of tests, with its name in the output.
#[derive(Debug)]
struct Program {
    name: String,
    command: Command,
}

/// Builds and runs every test. A program's output is shown when it ends, since the lines of two
/// programs could not be told apart. Until then it is in a log of its own.
pub(super) fn run_all(variables: &Variables<'_>) -> anyhow::Result<()> {
    let programs = build(variables)?;
    let logs = target().join("test-logs");
    fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
    println!(
        "{} programs of tests, {AT_ONCE} at a time; each is shown when it ends (follow them in {})",
        programs.len(),
        logs.display()
    );
    let failed = run(programs, &logs);
    match failed.is_empty() {
        true => Ok(()),
        false => bail!("tests failed in: {}", failed.join(", ")),
    }
}

/// Every program: the longest first, and the examples of the documentation last.
fn build(variables: &Variables<'_>) -> anyhow::Result<Vec<Program>> {
    let mut build = cargo(&[
        "test",
        "--workspace",
        "--all-features",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    let built = build.stderr(Stdio::inherit()).output()?;
    if !built.status.success() {
        bail!("{build:?} ended with {}", built.status);
    }
    let mut programs = Vec::new();
    for message in Message::parse_stream(built.stdout.as_slice()) {
        let Message::CompilerArtifact(artifact) = message? else {
            continue;
        };
        let Some(file) = artifact.executable.filter(|_| artifact.profile.test) else {
            continue;
        };
        let folder = artifact
            .manifest_path
            .parent()
            .context("a manifest is in a folder")?;
        programs.push(program(
            file.as_std_path(),
            folder.as_std_path(),
            &artifact.target,
            variables,
        ));
    }
    programs.sort_by_key(|program| !program.name.starts_with(LONGEST));
    let mut examples = cargo(&[
        "test",
        "--workspace",
        "--all-features",
        "--no-fail-fast",
        "--doc",
    ]);
    examples.envs(variables.iter().copied());
    programs.push(Program {
        name: "examples in the documentation".to_owned(),
        command: examples,
    });
    Ok(programs)
}

/// The program as cargo would start it.
fn program(file: &Path, folder: &Path, target: &Target, variables: &Variables<'_>) -> Program {
    let package = folder.file_name().unwrap_or_default().to_string_lossy();
    let source = target
        .src_path
        .as_std_path()
        .strip_prefix(folder)
        .unwrap_or(target.src_path.as_std_path());
    let mut command = Command::new(file);
    command
        .current_dir(folder)
        .env("CARGO_MANIFEST_DIR", folder)
        .env("CARGO", env!("CARGO"));
    command.envs(variables.iter().copied());
    Program {
        name: format!("{package} {}", source.display()),
        command,
    }
}

/// Runs all programs, even if some fail, shows each when it has ended, and returns the names of
/// those that failed.
fn run(programs: Vec<Program>, logs: &Path) -> Vec<String> {
    let waiting = Mutex::new(programs.into_iter());
    let (ended, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            let waiting = &waiting;
            let ended = ended.clone();
            scope.spawn(move || {
                while let Some(program) = next(waiting) {
                    let name = program.name.clone();
                    let began = Instant::now();
                    let result = program.run(logs);
                    let is_told = ended.send((name, began.elapsed(), result)).is_ok();
                    debug_assert!(is_told, "who shows them is there until the last one ended");
                }
            });
        }
        drop(ended);
        let failed = results
            .into_iter()
            .filter(|(name, took, result)| !show(name, *took, result));
        failed.map(|(name, ..)| name).collect()
    })
}

fn next(waiting: &Mutex<IntoIter<Program>>) -> Option<Program> {
    waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .next()
}

impl Program {
    /// Runs the program. Returns whether its tests passed, and its output.
    fn run(mut self, logs: &Path) -> anyhow::Result<(bool, String)> {
        let log = logs
            .join(self.name.replace(['/', ' '], "-"))
            .with_extension("log");
        let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        self.command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let status = self
            .command
            .status()
            .with_context(|| format!("starting {:?}", self.command))?;
        Ok((
            status.success(),
            String::from_utf8_lossy(&fs::read(&log)?).into_owned(),
        ))
    }
}

/// Prints the result of a program. Returns true if it passed.
fn show(name: &str, took: Duration, result: &anyhow::Result<(bool, String)>) -> bool {
    let (has_passed, printed) = match result {
        Ok((has_passed, printed)) => (*has_passed, printed.clone()),
        Err(error) => (false, format!("{error:#}")),
    };
    let verdict = if has_passed { "passed" } else { "FAILED" };
    println!(
        "\n-- {name}: {verdict}, {:.0} s\n{}",
        took.as_secs_f32(),
        printed.trim()
    );
    has_passed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(name: &str, script: &str) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program {
            name: name.to_owned(),
            command,
        }
    }

    #[test]
    fn what_fails_is_named_and_the_others_run_all_the_same() {
        let logs = tempfile::tempdir().unwrap();
        let missing = Program {
            name: "missing".to_owned(),
            command: Command::new("/no/such/program"),
        };
        let programs = vec![
            shell("good", "echo well"),
            shell("bad src/lib.rs", "echo why >&2; exit 101"),
            missing,
            shell("last", "echo ran"),
        ];
        let mut failed = run(programs, logs.path());
        failed.sort();
        assert_eq!(failed, ["bad src/lib.rs", "missing"]);
        let log = |name: &str| fs::read_to_string(logs.path().join(name)).unwrap();
        assert_eq!(
            (log("bad-src-lib.log"), log("last.log")),
            ("why\n".to_owned(), "ran\n".to_owned())
        );
    }

    #[test]
    fn two_run_at_the_same_time() {
        // Each waits for the other: run one after the other, they would never end.
        let folder = tempfile::tempdir().unwrap();
        let meet = |mine: &str, other: &str| {
            let wait = format!(
                "touch {mine}; for i in $(seq 600); do [ -e {other} ] && exit 0; sleep 0.1; done; exit 1"
            );
            let mut program = shell(mine, &wait);
            program.command.current_dir(folder.path());
            program
        };
        let failed = run(vec![meet("a", "b"), meet("b", "a")], folder.path());
        assert_eq!(failed, [""; 0]);
    }
}
