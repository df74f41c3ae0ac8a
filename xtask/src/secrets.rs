//! Throw-away secrets, to try `docker-compose.yml` with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail};

use crate::{cargo, root};

const USERS: [&str; 4] = ["gateway", "dispatcher", "operator", "admin"];

/// Writes passwords and a key pair into `secrets/`.
pub(crate) fn run() -> anyhow::Result<()> {
    let folder = root().join("secrets");
    if folder.exists() {
        bail!("{} is there already: remove it to begin anew", folder.display());
    }
    fs::create_dir(&folder)?;
    let mut all = String::new();
    for user in USERS {
        let password = password()?;
        all += &format!("{}_PASSWORD: \"{password}\"\n", user.to_uppercase());
        write(&folder.join(format!("{user}-password")), &password)?;
    }
    all += &servers(&password()?);
    write(&folder.join("passwords.conf"), &all)?;
    let key = folder.join("simulator");
    let make = ["run", "--quiet", "--package", "simulator", "--", "keys"];
    crate::run(cargo(&make).arg(&key))?;
    readable(&key.with_extension("pub"))?;
    println!(
        "wrote {}: for trying only; its files can be read by everybody on this machine",
        folder.display()
    );
    Ok(())
}

/// What the servers of the cluster ask of each other.
fn servers(password: &str) -> String {
    let routes =
        ["nats-1", "nats-2", "nats-3"].map(|host| format!("\"nats://cluster:{password}@{host}:6222\""));
    format!("CLUSTER_PASSWORD: \"{password}\"\nCLUSTER_ROUTES: [{}]\n", routes.join(", "))
}

/// 128 bits of the system's randomness.
fn password() -> anyhow::Result<String> {
    use std::io::Read;
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom").context("opening /dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    readable(path)
}

/// Containers see the file as it is here, and run as a user of their own.
fn readable(path: &Path) -> anyhow::Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o644))?)
}
