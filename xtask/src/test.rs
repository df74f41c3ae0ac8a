//! `cargo xtask test`: everything that must pass before a change lands.

mod outside;
mod programs;
mod publishing;

use std::fs;
use std::net::{TcpStream, ToSocketAddrs};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use comfy_table::{Table, presets};

use crate::{cargo, demo, run, target};

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

const STEPS: [Step; 14] = [
    ("format", format),
    ("lints", lints),
    ("docs", docs),
    ("licences, bans, sources", deny),
    ("advisories", advisories),
    ("a NATS server", nats),
    ("tests", tests),
    ("the outside workspace", outside::example),
    ("a dispatcher by the how-to", outside::by_the_how_to),
    ("a new dispatcher", outside::made_anew),
    ("publishing, as a dry run", publishing::dry_run),
    ("the oldest Rust that works", publishing::oldest_rust),
    ("compatibility with the release", publishing::compatible),
    ("demo --once", demo_once),
];

/// Runs every step, or those whose names contain `only`, and stops at the first failure.
pub(crate) fn run_steps(only: Option<&str>) -> anyhow::Result<()> {
    let is_wanted = |name: &str| only.is_none_or(|only| name.contains(only));
    let steps: Vec<Step> = STEPS.into_iter().filter(|step| is_wanted(step.0)).collect();
    if steps.is_empty() {
        bail!(
            "no step has such a name: {}",
            STEPS.map(|(name, _)| name).join(", ")
        );
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["step", "result", "took"]);
    let mut not_checked = 0;
    for (name, step) in steps {
        println!("\n== {name}");
        let began = Instant::now();
        let result = step().with_context(|| format!("step `{name}` failed"))?;
        not_checked += usize::from(result.starts_with(NOT_CHECKED));
        table.add_row([name, &result, &seconds(began.elapsed())]);
    }
    match not_checked {
        0 if only.is_some() => {
            println!("\n{table}\n\nok: these passed, and the others did not run")
        }
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
    ensure_installed("deny", CARGO_DENY)?;
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

/// Installs a command of cargo's in this version, if it is missing.
fn ensure_installed(command: &str, version: &str) -> anyhow::Result<()> {
    let there = cargo(&[command, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if there.success() {
        return Ok(());
    }
    let package = format!("cargo-{command}");
    println!("installing {package} {version} (a few minutes, once) ...");
    run(&mut cargo(&[
        "install",
        &package,
        "--quiet",
        "--locked",
        "--version",
        version,
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
