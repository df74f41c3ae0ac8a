//! Release binaries and images, stage by stage.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use comfy_table::{Table, presets};

use crate::{cargo, root, target};

/// What is deployed is small; figures and traces of panics need no line numbers.
const STRIP: &str = "profile.release.strip=\"symbols\"";

/// What can be deployed: a stage, its package, and its program.
const STAGES: [(&str, &str, &str); 3] = [
    ("gateway", "gateway", "fluent-gateway"),
    ("dispatcher", "dispatcher", "fluent-dispatcher"),
    ("webhooks", "fluent-webhooks", "fluent-webhooks"),
];

/// What to build.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// gateway, dispatcher or webhooks (all in one, and every command); left out, all
    stage: Option<String>,
    /// Binaries only
    #[arg(long)]
    no_images: bool,
}

/// Builds release binaries into `target/dist`, and an image of each.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let known = STAGES.map(|(name, ..)| name).join(", ");
    let wanted = |name: &str| args.stage.as_deref().is_none_or(|stage| stage == name);
    let stages: Vec<_> = STAGES.into_iter().filter(|(name, ..)| wanted(name)).collect();
    if stages.is_empty() {
        bail!("no such stage: expected one of {known}");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["stage", "program", "size", "image"]);
    for (stage, package, program) in stages {
        let size = binary(package, program)?;
        let image = if args.no_images { "not asked for".to_owned() } else { image(stage, program)? };
        let path = target().join("dist").join(program).display().to_string();
        table.add_row([
            stage.to_owned(),
            path,
            format!("{:.1} MiB", size as f64 / f64::from(1 << 20)),
            image,
        ]);
    }
    println!("\n{table}");
    Ok(())
}

fn binary(package: &str, program: &str) -> anyhow::Result<u64> {
    println!("Building {program} for release (about five minutes the first time) ...");
    crate::run(&mut cargo(&[
        "build",
        "--release",
        "--config",
        STRIP,
        "--quiet",
        "--package",
        package,
        "--bin",
        program,
    ]))?;
    let folder = target().join("dist");
    fs::create_dir_all(&folder)?;
    let built = folder.join(program);
    fs::copy(target().join("release").join(program), &built).with_context(|| format!("copying {program}"))?;
    Ok(fs::metadata(built)?.len())
}

/// From the binary that was just built: the Dockerfile's other way is to build
/// it inside.
fn image(stage: &str, program: &str) -> anyhow::Result<String> {
    let asked = Command::new("docker").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !asked.is_ok_and(|status| status.success()) {
        return Ok("NOT BUILT: no Docker here".to_owned());
    }
    let name = format!("fluent-webhooks/{stage}:{}", env!("CARGO_PKG_VERSION"));
    let dist = target().join("dist");
    let program = format!("PROGRAM={program}");
    let args = ["build", "--target", "prebuilt", "--build-arg", &program, "--tag", &name, "--file"];
    let mut docker = Command::new("docker");
    docker.args(args).arg(root().join("Dockerfile"));
    crate::run(docker.arg(&dist))?;
    Ok(name)
}
