//! `cargo xtask secrets`: throw-away secrets for trials of `docker-compose.yml`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use nats_server::Authority;

use crate::{cargo, root};

const USERS: [&str; 4] = ["gateway", "dispatcher", "operator", "admin"];

/// The servers of `docker-compose.yml`, by the names in their certificates.
const SERVERS: [&str; 3] = ["nats-1", "nats-2", "nats-3"];

/// Writes passwords, certificates and a key pair into `secrets/`.
pub(crate) fn run() -> anyhow::Result<()> {
    let folder = root().join("secrets");
    if folder.exists() {
        bail!(
            "{} is there already: remove it to begin anew",
            folder.display()
        );
    }
    fs::create_dir(&folder)?;
    write_all(&folder)?;
    let key = folder.join("simulator");
    let make = [
        "run",
        "--quiet",
        "--package",
        "fluent-simulator",
        "--",
        "keys",
    ];
    crate::run(cargo(&make).arg(&key))?;
    readable(&key.with_extension("pub"))?;
    println!(
        "wrote {}: for trying only; its files can be read by everybody on this machine",
        folder.display()
    );
    Ok(())
}

/// Writes all secrets except the simulator's key.
pub(crate) fn write_all(folder: &Path) -> anyhow::Result<()> {
    let mut all = String::new();
    for user in USERS {
        let password = password()?;
        all += &format!("{}_PASSWORD: \"{password}\"\n", user.to_uppercase());
        write(&folder.join(format!("{user}-password")), &password)?;
    }
    all += &routes(&password()?);
    write(&folder.join("passwords.conf"), &all)?;
    write_certificates(folder)?;
    Ok(())
}

/// The password and the addresses by which the servers of the cluster reach each other.
fn routes(password: &str) -> String {
    let routes = SERVERS.map(|host| format!("\"nats://cluster:{password}@{host}:6222\""));
    format!(
        "CLUSTER_PASSWORD: \"{password}\"\nCLUSTER_ROUTES: [{}]\n",
        routes.join(", ")
    )
}

/// Writes the certificate of an authority, and a certificate and key for each server.
fn write_certificates(folder: &Path) -> anyhow::Result<()> {
    let authority = Authority::generate()?;
    write(&folder.join("nats-ca.crt"), &authority.certificate())?;
    for name in SERVERS {
        let server = authority.certify(&[name])?;
        write(&folder.join(format!("{name}.crt")), &server.certificate)?;
        write(&folder.join(format!("{name}.key")), &server.key)?;
    }
    Ok(())
}

/// 128 bits of the system's randomness.
fn password() -> anyhow::Result<String> {
    use std::io::Read;
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")
        .context("opening /dev/urandom")?
        .read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    readable(path)
}

/// Makes the file readable: containers see its real mode, and run as users of their own.
fn readable(path: &Path) -> anyhow::Result<()> {
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o644),
    )?)
}
