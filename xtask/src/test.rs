//! `cargo xtask test`: everything that must pass before a change lands.

mod programs;

use std::fs;
use std::net::{TcpStream, ToSocketAddrs};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use comfy_table::{Table, presets};

use crate::{cargo, demo, new_dispatcher, root, run, target};

/// The version that is installed if cargo-deny is missing.
const CARGO_DENY: &str = "0.20.2";

/// The variable with the file in which tests write that they can't run here: `e2e::NOT_RUN_FILE`,
/// a crate that this program is not built with.
const NOT_RUN_FILE: &str = "FLUENT_WEBHOOKS_TESTS_NOT_RUN";

/// The beginning of a step's result if not everything was checked.
const NOT_CHECKED: &str = "NOT CHECKED";

/// Longest time for the database's host to answer, if it can be reached.
const REACHED_WITHIN: Duration = Duration::from_secs(5);

type Step = (&'static str, fn() -> anyhow::Result<String>);

const STEPS: [Step; 10] = [
    ("format", format),
    ("lints", lints),
    ("docs", docs),
    ("licences, bans, sources", deny),
    ("advisories", advisories),
    ("a NATS server", nats),
    ("tests", tests),
    ("the outside workspace", outside),
    ("a new dispatcher", made_anew),
    ("demo --once", demo_once),
];

/// Runs every step, and stops at the first failure.
pub(crate) fn run_steps() -> anyhow::Result<()> {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["step", "result", "took"]);
    let mut not_checked = 0;
    for (name, step) in STEPS {
        println!("\n== {name}");
        let began = Instant::now();
        let result = step().with_context(|| format!("step `{name}` failed"))?;
        not_checked += usize::from(result.starts_with(NOT_CHECKED));
        table.add_row([name, &result, &seconds(began.elapsed())]);
    }
    match not_checked {
        0 => println!("\n{table}\n\nok: everything passed"),
        _ => println!("\n{table}\n\nok, but {not_checked} of it was NOT CHECKED"),
    }
    Ok(())
}

fn seconds(took: Duration) -> String {
    format!("{:.0} s", took.as_secs_f32())
}

fn format() -> anyhow::Result<String> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    Ok("ok".to_owned())
}

fn lints() -> anyhow::Result<String> {
    run(&mut cargo(&[
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--",
        "-D",
        "warnings",
    ]))?;
    Ok("ok".to_owned())
}

fn docs() -> anyhow::Result<String> {
    let mut doc = cargo(&[
        "doc",
        "--quiet",
        "--workspace",
        "--no-deps",
        "--all-features",
    ]);
    run(doc.env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok("ok".to_owned())
}

fn deny() -> anyhow::Result<String> {
    install_deny()?;
    run(&mut cargo(&[
        "deny",
        "--log-level",
        "error",
        "check",
        "bans",
        "licenses",
        "sources",
    ]))?;
    Ok("ok".to_owned())
}

fn install_deny() -> anyhow::Result<()> {
    let there = cargo(&["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if there.success() {
        return Ok(());
    }
    println!("installing cargo-deny {CARGO_DENY} (a few minutes, once) ...");
    run(&mut cargo(&[
        "install",
        "cargo-deny",
        "--quiet",
        "--locked",
        "--version",
        CARGO_DENY,
    ]))
}

/// Checks the dependencies for known vulnerabilities. Their database is on the network.
fn advisories() -> anyhow::Result<String> {
    let output = cargo(&["deny", "--log-level", "error", "check", "advisories"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    match advisory_result(output.status.success(), &said, can_reach_database) {
        Advisories::Clean => Ok("ok".to_owned()),
        Advisories::NotChecked => {
            println!(
                "The advisory database can't be reached from here: known vulnerabilities were NOT checked."
            );
            Ok(NO_DATABASE.to_owned())
        }
        Advisories::Failed => {
            println!("{said}");
            bail!(
                "an advisory concerns what we use, or they could not be checked although the database is there"
            );
        }
    }
}

/// The result for the summary if the database could not be reached.
const NO_DATABASE: &str = "NOT CHECKED: no way to the database";

/// The host of the database.
const DATABASE: &str = "github.com:443";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advisories {
    Clean,
    NotChecked,
    Failed,
}

/// The result of the check. Only if the database can't be reached is a failure no failure.
fn advisory_result(is_clean: bool, said: &str, can_reach: impl FnOnce() -> bool) -> Advisories {
    let has_found = said.contains("error[") || !said.contains("advisory database");
    match is_clean {
        true => Advisories::Clean,
        false if has_found || can_reach() => Advisories::Failed,
        false => Advisories::NotChecked,
    }
}

fn can_reach_database() -> bool {
    let addresses = DATABASE.to_socket_addrs().into_iter().flatten();
    addresses
        .take(2)
        .any(|address| TcpStream::connect_timeout(&address, REACHED_WITHIN).is_ok())
}

/// Finds the NATS server for the tests, or fetches it once.
fn nats() -> anyhow::Result<String> {
    println!("{}", nats_server::find(&target())?.display());
    Ok("ok".to_owned())
}

/// Runs the tests. A test that can't run on this machine passes, and writes so in a file, since
/// nobody sees its output.
fn tests() -> anyhow::Result<String> {
    let file = target().join("tests-not-run.txt");
    if file.exists() {
        fs::remove_file(&file)?;
    }
    programs::run_all(&[(NOT_RUN_FILE, &file)])?;
    let not_run = if file.exists() {
        fs::read_to_string(&file)?
    } else {
        String::new()
    };
    match not_run.lines().count() {
        0 => Ok("ok".to_owned()),
        count => {
            println!("could not run on this machine:\n{not_run}");
            Ok(format!(
                "{NOT_CHECKED} by what can't run here: {count} (target/tests-not-run.txt)"
            ))
        }
    }
}

/// Builds and tests the example of a dispatcher outside the workspace, which has only the public
/// API.
fn outside() -> anyhow::Result<String> {
    let manifest = root().join("examples/my-dispatcher/Cargo.toml");
    let mut test = Command::new(env!("CARGO"));
    // The same target folder, so that nothing is built a second time.
    test.args(["test", "--manifest-path"])
        .arg(manifest)
        .env("CARGO_TARGET_DIR", target());
    run(&mut test)?;
    Ok("ok".to_owned())
}

/// Builds and tests a dispatcher made by `new-dispatcher`, in a copy of this workspace.
fn made_anew() -> anyhow::Result<String> {
    let copy = target().join("new-dispatcher");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    let mut git = Command::new("git");
    let listed = git
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()?;
    for file in String::from_utf8_lossy(&listed.stdout).lines() {
        let from = root().join(file);
        let to = copy.join(file);
        if from.is_file() {
            fs::create_dir_all(to.parent().unwrap_or(&copy))?;
            fs::copy(from, to)?;
        }
    }
    new_dispatcher::make(&copy, "ship-it")?;
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--quiet", "--package", "fluent-dispatch-ship-it"])
        .current_dir(&copy);
    run(test.env("CARGO_TARGET_DIR", target()))?;
    Ok("ok".to_owned())
}

fn demo_once() -> anyhow::Result<String> {
    demo::run(&["--once".to_owned()])?;
    Ok("ok".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_can_not_reach_the_database_goes_on_without_it() {
        let unreachable =
            "failed to fetch advisory database https://github.com/rustsec/advisory-db";
        let found = "error[vulnerability]: in the advisory database";
        for (is_clean, said, can_reach, expected) in [
            (true, "", false, Advisories::Clean),
            (false, unreachable, false, Advisories::NotChecked),
            (false, unreachable, true, Advisories::Failed),
            (false, found, false, Advisories::Failed),
            (false, "something else", false, Advisories::Failed),
        ] {
            assert_eq!(
                advisory_result(is_clean, said, || can_reach),
                expected,
                "{said}, {can_reach}"
            );
        }
    }
}
