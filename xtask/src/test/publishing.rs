//! What concerns the crates as others use them: can they be published, with which Rust, and do they
//! keep what the last release promised.

use std::process::Command;

use anyhow::{Context, bail};
use cargo_metadata::{Metadata, MetadataCommand};

use super::{NOT_CHECKED, ensure_installed};
use crate::{cargo, root, run};

/// The version that is installed if cargo-semver-checks is missing.
const SEMVER_CHECKS: &str = "0.51.0";

/// The crates for outsiders, whose versions promise compatibility. The others are published since
/// these need them, and promise nothing: docs/decisions/0027-published-crates.md.
const SEAMS: [&str; 10] = [
    "fluent-api",
    "fluent-condition",
    "fluent-dispatch",
    "fluent-dispatch-grpc",
    "fluent-dispatch-kit",
    "fluent-event-model",
    "fluent-proto",
    "fluent-queue",
    "fluent-settings",
    "fluent-verifier",
];

/// Packs every crate as for the registry, and uploads nothing. The registry's index has to be
/// there.
pub(super) fn dry_run() -> anyhow::Result<String> {
    let mut publish = cargo(&["publish", "--workspace", "--dry-run", "--no-verify"]);
    // What is being worked on is checked too. A clean checkout, as in CI, needs no such leave.
    let is_clean = git(&["status", "--porcelain"])?.is_empty();
    if !is_clean {
        publish.arg("--allow-dirty");
    }
    let output = publish.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    match (output.status.success(), is_unreachable(&said)) {
        (true, _) if is_clean => Ok("ok".to_owned()),
        (true, _) => Ok("ok, of files that are not committed".to_owned()),
        (false, true) => {
            println!(
                "{said}\nThe registry can't be reached from here: publishing was NOT checked."
            );
            Ok(format!("{NOT_CHECKED}: no way to the registry"))
        }
        (false, false) => {
            println!("{said}");
            bail!("the crates can't be published as they are");
        }
    }
}

/// True if cargo failed for want of the registry. What it said before its error, of tries that were
/// made again, does not count.
fn is_unreachable(said: &str) -> bool {
    let error = said.rfind("error: ").map_or("", |at| said.split_at(at).1);
    [
        "curl failed",
        "network failure",
        "--offline was specified",
        // A mirror, which does not take what is published.
        "is replaced with",
    ]
    .iter()
    .any(|words| error.contains(words))
}

/// Builds what is published with the oldest Rust that its manifests allow.
pub(super) fn oldest_rust() -> anyhow::Result<String> {
    let oldest = oldest(&metadata()?)?;
    let here = Command::new("rustc")
        .arg("--version")
        .current_dir(root())
        .output()?;
    let here = String::from_utf8_lossy(&here.stdout).into_owned();
    if is_version(&here, &oldest) {
        return Ok(format!("ok: all of this ran with {oldest}, the oldest"));
    }
    let Some(toolchain) = toolchain(&oldest) else {
        println!(
            "Rust {oldest} is not here (`rustup toolchain install {oldest}` puts it there): the \
             oldest Rust was NOT checked."
        );
        return Ok(format!("{NOT_CHECKED}: no Rust {oldest} here"));
    };
    let mut check = Command::new("rustup");
    check.args([
        "run",
        &toolchain,
        "cargo",
        "check",
        "--quiet",
        "--workspace",
        "--locked",
    ]);
    for unpublished in ["e2e", "nats-server", "xtask", "xtask-start"] {
        check.args(["--exclude", unpublished]);
    }
    run(check
        .current_dir(root())
        .env("RUSTUP_TOOLCHAIN", &toolchain))?;
    Ok(format!("ok: builds with {oldest}"))
}

/// The `rust-version` of what is published.
fn oldest(metadata: &Metadata) -> anyhow::Result<String> {
    let package = metadata.packages.iter().find(|it| it.name == SEAMS[0]);
    let version = package.and_then(|it| it.rust_version.as_ref());
    let version = version.context("the manifests have no rust-version")?;
    Ok(format!("{}.{}", version.major, version.minor))
}

/// True if a compiler that says `rustc 1.95.0 (...)` is of this version, such as 1.95.
fn is_version(said: &str, version: &str) -> bool {
    let number = said.split(' ').nth(1).unwrap_or_default();
    number
        .strip_prefix(version)
        .is_some_and(|rest| rest.starts_with('.'))
}

/// The name of an installed toolchain of this version. None is installed unasked: that, and the
/// build of everything by a second compiler, takes minutes.
fn toolchain(version: &str) -> Option<String> {
    let listed = Command::new("rustup").args(["toolchain", "list"]).output();
    let listed = listed.ok()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut names = listed.lines().filter_map(|line| line.split(' ').next());
    names
        .find(|name| is_version(&format!("rustc {name}"), version))
        .map(str::to_owned)
}

/// Compares the crates for outsiders with the last release: what breaks others needs a version that
/// says so.
pub(super) fn compatible() -> anyhow::Result<String> {
    let Some(release) = release()? else {
        if git(&["rev-parse", "--is-shallow-repository"])? == "true" {
            println!("A shallow clone does not have the releases: compatibility was NOT checked.");
            return Ok(format!("{NOT_CHECKED}: a shallow clone has no releases"));
        }
        return Ok("ok: nothing is released yet that could be broken".to_owned());
    };
    if let Err(error) = ensure_installed("semver-checks", SEMVER_CHECKS) {
        println!("{error:#}\ncargo-semver-checks is not here: compatibility was NOT checked.");
        return Ok(format!("{NOT_CHECKED}: no cargo-semver-checks here"));
    }
    let mut check = cargo(&["semver-checks", "--baseline-rev", &release]);
    for seam in SEAMS {
        check.args(["--package", seam]);
    }
    run(&mut check)?;
    Ok(format!(
        "ok: compatible with {release}, or a version says that it is not"
    ))
}

/// The tag of the last release before this commit.
fn release() -> anyhow::Result<Option<String>> {
    let tag = git(&[
        "tag",
        "--merged",
        "HEAD",
        "--list",
        "v*",
        "--sort",
        "-version:refname",
    ])?;
    Ok(tag.lines().next().map(str::to_owned))
}

fn git(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("git")
        .args(args)
        .current_dir(root())
        .output()?;
    if !output.status.success() {
        bail!(
            "git {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn metadata() -> anyhow::Result<Metadata> {
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml")).no_deps();
    Ok(command.exec()?)
}

#[cfg(test)]
mod tests;
