//! The sample routes of `config/integrations`, as they are shipped, except for the addresses of
//! their systems and for their retry times. A link to that folder stands beside this file, since a
//! crate is published with the files in its own folder alone.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;

macro_rules! samples {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("integrations/", $name)))),*]
    };
}

const ROUTES: [(&str, &str); 6] = samples![
    "warehouse.yml",
    "carrier.yml",
    "erp.yml",
    "commerce.yml",
    "notification.yml",
    "pickup.yml"
];

const TEMPLATES: [(&str, &str); 9] = samples![
    "warehouse.json",
    "carrier-booking.json",
    "carrier-label.json",
    "carrier-manifest.json",
    "erp.json",
    "notification.json",
    "pickup.graphql",
    "pickup.json",
    "pickup-notified.json",
];

/// The files that the samples read from `secrets/`. The last is a key of Standard Webhooks.
const SECRETS: [(&str, &str); 6] = [
    ("warehouse", "demo"),
    ("carrier", "demo"),
    ("erp", "demo"),
    ("messages", "demo"),
    ("fluent", simulator::api::LOGIN),
    ("shop-signing", "whsec_ZGVtbyBkZW1vIGRlbW8gZGVtbyBkZW1v"),
];

/// Shorter times than production's, since a demo is over before those.
const IMPATIENT: [(&str, &str); 2] = [
    ("max-delay: 10m", "max-delay: 2s"),
    ("max-cooldown: 1m", "max-cooldown: 5s"),
];

/// All routes, as YAML under `routes:`.
pub(super) fn routes(endpoints: SocketAddr, warehouse: SocketAddr) -> String {
    let each = ROUTES.iter().map(|(_, text)| {
        text.split_once("  routes:\n")
            .map_or("", |(_, routes)| routes)
    });
    let mut routes: String = each.collect();
    for (from, to) in IMPATIENT {
        routes = routes.replace(from, to);
    }
    routes = routes.replace(
        "https://warehouse.example.com",
        &format!("http://{warehouse}/warehouse"),
    );
    for host in ["carrier", "erp", "shop", "messages"] {
        routes = routes.replace(
            &format!("https://{host}.example.com"),
            &format!("http://{endpoints}/{host}"),
        );
    }
    routes
}

/// Writes the files that the routes read.
pub(super) fn write_files(folder: &Path) -> anyhow::Result<()> {
    let secrets = folder.join("secrets");
    fs::create_dir_all(&secrets).with_context(|| format!("making {}", secrets.display()))?;
    let files = TEMPLATES
        .iter()
        .map(|(name, text)| (folder.join(name), text));
    for (path, text) in files.chain(
        SECRETS
            .iter()
            .map(|(name, text)| (secrets.join(name), text)),
    ) {
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_of_the_samples_is_played_here() {
        let address = "127.0.0.1:1".parse().unwrap();
        let routes = routes(address, address);
        assert!(!routes.contains("example.com"), "{routes}");
        assert_eq!(routes.matches("    - name: ").count(), 8);
    }
}
