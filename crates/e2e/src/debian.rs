//! Programs of Debian's packages, for tests that need the real one: the installed program, or the
//! package with its dependencies, unpacked beside the build.

use std::env::{split_paths, var_os};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders for administrators' programs, which are not on every PATH.
const SBIN: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Lists and archives in folders of their own: the machine's may be old, and are not ours to
/// renew. No rights are needed, since nothing is installed.
const FETCH: &str = r#"
    mkdir -p state/lists/partial cache/archives/partial unpacked
    package="$1"
    set -- -qq -y -o Dir::State="$PWD/state" -o Dir::Cache="$PWD/cache" -o APT::Sandbox::User= \
        -o Debug::NoLocking=1 -o Dir::State::status=/var/lib/dpkg/status
    apt-get "$@" update
    apt-get "$@" --no-install-recommends --download-only install "$package"
    for archive in cache/archives/*.deb; do dpkg-deb --extract "$archive" unpacked; done"#;

/// A command that runs `program` of the package.
///
/// # Errors
///
/// If it is not installed, and the package can't be fetched: this is no Debian, or its archive
/// can't be reached.
pub fn command(package: &str, program: &str) -> anyhow::Result<Command> {
    let path = var_os("PATH").unwrap_or_default();
    let folders = split_paths(&path).chain(SBIN.map(PathBuf::from));
    if let Some(found) = folders
        .map(|folder| folder.join(program))
        .find(|found| found.is_file())
    {
        return Ok(Command::new(found));
    }
    let place = fetch(&nats_server::Options::default().programs, package)?;
    let found = ["usr/bin", "usr/sbin"].map(|folder| place.join(folder).join(program));
    let found = found.into_iter().find(|found| found.is_file());
    let found =
        found.ok_or_else(|| anyhow::anyhow!("Debian's package `{package}` has no `{program}`"))?;
    let mut command = Command::new(found);
    command.env("LD_LIBRARY_PATH", libraries(&place));
    Ok(command)
}

/// The search path for the unpacked libraries that the machine does not have.
fn libraries(place: &Path) -> std::ffi::OsString {
    let lib = place.join("usr/lib");
    let of_machines = fs::read_dir(&lib)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let folders: Vec<_> = of_machines
        .filter(|folder| folder.is_dir())
        .chain([lib.clone()])
        .collect();
    std::env::join_paths(folders).unwrap_or_default()
}

/// Fetches and unpacks the package, and returns the folder. One process does, and others wait for
/// it.
fn fetch(target: &Path, package: &str) -> anyhow::Result<PathBuf> {
    let place = target.join("debian").join(package);
    fs::create_dir_all(target.join("debian"))?;
    let lock = File::create(place.with_extension("lock"))?;
    lock.lock()?;
    if place.exists() {
        return Ok(place);
    }
    let scratch = tempfile::tempdir_in(target)?;
    let output = Command::new("sh")
        .args(["-euc", FETCH, "fetch", package])
        .current_dir(scratch.path())
        .output()?;
    anyhow::ensure!(
        output.status.success(),
        "fetching Debian's package `{package}`: {}; or install it yourself",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    fs::rename(scratch.path().join("unpacked"), &place)?;
    Ok(place)
}
