//! `cargo xtask dist`: release binaries, their bills of materials, and images, stage by stage.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use comfy_table::{Table, presets};

use crate::{cargo, debug_info, root, sbom, target};

/// Builds with symbols and lines, which are then moved into a file of their own.
const WITH_SYMBOLS: &str = "profile.release.strip=\"none\"";

/// Largest program. The next dependency that doubles it is to be noticed here.
const MAX_BYTES: u64 = 45_000_000;

/// The stages that can be deployed: name, and program, which has the name of its package.
const STAGES: [(&str, &str); 3] = [
    ("gateway", "fluent-gateway"),
    ("dispatcher", "fluent-dispatcher"),
    ("webhooks", "fluent-webhooks"),
];

struct Stage {
    name: String,
    program: String,
}

/// The stages, and every dispatcher with a binary of its own.
fn stages() -> anyhow::Result<Vec<Stage>> {
    let stage = |(name, program): (&str, &str)| Stage {
        name: name.to_owned(),
        program: program.to_owned(),
    };
    let mut stages: Vec<Stage> = STAGES.into_iter().map(stage).collect();
    let mut own = Vec::new();
    for entry in fs::read_dir(root().join("crates"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_one = name.starts_with("dispatch-")
            && root()
                .join("crates")
                .join(&name)
                .join("src/main.rs")
                .exists();
        own.extend(is_one.then(|| Stage {
            program: format!("fluent-{name}"),
            name,
        }));
    }
    own.sort_by(|a, b| a.name.cmp(&b.name));
    stages.extend(own);
    Ok(stages)
}

/// What to build.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// gateway, dispatcher, webhooks (all in one, and every command), or a dispatcher of its own
    /// such as dispatch-nats; left out, all
    stage: Option<String>,
    /// Binaries only
    #[arg(long)]
    no_images: bool,
}

/// Builds release binaries into `target/dist`, with their debug information and a bill of materials
/// beside each, and an image of each.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let stages = stages()?;
    let known = stages
        .iter()
        .map(|stage| stage.name.clone())
        .collect::<Vec<_>>()
        .join(", ");
    let wanted = |stage: &Stage| {
        args.stage
            .as_ref()
            .is_none_or(|wanted| *wanted == stage.name)
    };
    let stages: Vec<Stage> = stages.into_iter().filter(wanted).collect();
    if stages.is_empty() {
        bail!("no such stage: expected one of {known}");
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["stage", "program", "size", "image"]);
    for Stage { name, program } in stages {
        let size = binary(&program)?;
        sbom::write(&program, &target().join("dist"))?;
        let image = if args.no_images {
            "not asked for".to_owned()
        } else {
            image(&name, &program)?
        };
        let path = target().join("dist").join(&program).display().to_string();
        table.add_row([
            name,
            path,
            format!("{:.1} MiB", size as f64 / f64::from(1 << 20)),
            image,
        ]);
    }
    println!("\n{table}");
    Ok(())
}

/// Refuses to build with fail points, by which tests end a process, or with what our crates have for
/// tests alone: an environment variable or a mistake in a manifest must not bring them into what is
/// deployed.
fn ensure_no_test_features(program: &str) -> anyhow::Result<()> {
    let mut tree = cargo(&[
        "tree",
        "--package",
        program,
        "--edges",
        "normal",
        "--prefix",
        "none",
    ]);
    let tree = tree
        .args(["--format", "{p} {f}"])
        .output()
        .context("cargo tree does not run")?;
    let tree = String::from_utf8_lossy(&tree.stdout).into_owned();
    match tree.lines().find(|line| has_test_features(line)) {
        Some(line) => bail!("{program} would be built with what is for tests alone: {line}"),
        None if !tree.contains(program) => bail!("cargo tree says nothing of {program}"),
        None => Ok(()),
    }
}

/// True if a line of `cargo tree` names a package that is built with fail points, or one of ours
/// with other features for tests.
fn has_test_features(line: &str) -> bool {
    let features = line.rsplit(' ').next().unwrap_or_default();
    let is_ours = line.starts_with("fluent-");
    features.split(',').any(|feature| match feature {
        "failpoints" => true,
        "conformance" | "testing" => is_ours,
        _ => false,
    })
}

fn binary(program: &str) -> anyhow::Result<u64> {
    ensure_no_test_features(program)?;
    println!("Building {program} for release");
    crate::run(&mut cargo(&[
        "build",
        "--release",
        "--config",
        WITH_SYMBOLS,
        "--package",
        program,
        "--bin",
        program,
    ]))?;
    let folder = target().join("dist");
    fs::create_dir_all(&folder)?;
    let built = folder.join(program);
    fs::copy(target().join("release").join(program), &built)
        .with_context(|| format!("copying {program}"))?;
    debug_info::separate(&built)?;
    let size = fs::metadata(built)?.len();
    ensure_small(program, size)?;
    Ok(size)
}

fn ensure_small(program: &str, size: u64) -> anyhow::Result<()> {
    ensure!(
        size <= MAX_BYTES,
        "{program} has {size} bytes without its debug information: expected at most {MAX_BYTES}"
    );
    Ok(())
}

/// The public certificate authorities of this machine: an image needs them, and its base image
/// has none.
fn authorities() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let bundles = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    ];
    let mut found = named.into_iter().chain(bundles.map(PathBuf::from));
    found.find(|bundle| bundle.is_file()).context(
        "no public authorities on this machine, which an image needs for HTTPS: install \
         `ca-certificates`, or name a PEM in SSL_CERT_FILE",
    )
}

/// Makes an image from the binary that was just built. The Dockerfile can also build it inside.
fn image(stage: &str, program: &str) -> anyhow::Result<String> {
    let asked = Command::new("docker")
        .arg("version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !asked.is_ok_and(|status| status.success()) {
        return Ok("NOT BUILT: no Docker here".to_owned());
    }
    let name = format!("fluent-webhooks/{stage}:{}", env!("CARGO_PKG_VERSION"));
    let dist = target().join("dist");
    let bundle = authorities()?;
    // Written and not copied: only root may read the original, or it may be write-protected.
    let pem = fs::read(&bundle).with_context(|| format!("reading {}", bundle.display()))?;
    fs::write(dist.join("ca-certificates.crt"), pem).context("writing ca-certificates.crt")?;
    let program = format!("PROGRAM={program}");
    let args = [
        "build",
        "--target",
        "prebuilt",
        "--build-arg",
        &program,
        "--tag",
        &name,
        "--file",
    ];
    let mut docker = Command::new("docker");
    docker.args(args).arg(root().join("Dockerfile"));
    crate::run(docker.arg(&dist))?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_grew_is_refused() {
        assert!(ensure_small("fluent-gateway", MAX_BYTES).is_ok());
        assert!(ensure_small("fluent-gateway", MAX_BYTES + 1).is_err());
    }

    #[test]
    fn what_is_deployed_has_nothing_for_tests() {
        assert!(has_test_features("fail v0.5.1 default,failpoints"));
        assert!(has_test_features(
            "fluent-queue-nats v0.1.0 (crates/queue-nats) failpoints"
        ));
        assert!(has_test_features(
            "fluent-queue v0.1.0 (crates/queue) conformance"
        ));
        assert!(!has_test_features("fail v0.5.1 default"));
        assert!(!has_test_features("opentelemetry_sdk v0.33.1 testing"));
        for (_, program) in STAGES {
            ensure_no_test_features(program).unwrap();
        }
    }
}
