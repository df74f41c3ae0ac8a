//! The command `init`: a settings file to begin with.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use dispatch::Registry;
use event_model::{Environment, KeyName};
use settings::REGIONS;

use crate::output;

/// The settings file to begin with; also what `config/` ships.
const TEMPLATE: &str = include_str!("application.template.yml");

/// An event as Fluent sends it, for `routes test`.
const EVENT: &str = include_str!("order.template.json");

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fluent's accountId
    #[arg(long)]
    account: String,
    /// sydney, dublin, singapore or north_america
    #[arg(long)]
    region: String,
    /// sandbox or production
    #[arg(long)]
    environment: Environment,
    /// Where to write it
    #[arg(long, default_value = "config/application.yml")]
    config: PathBuf,
}

pub(crate) fn run(args: &Args, registry: &Registry) -> anyhow::Result<()> {
    let region = known_region(&args.region)?;
    let text = filled(TEMPLATE, &args.account, region, args.environment)?;
    let config = args.config.display();
    if args.config.exists() {
        bail!("{config} is there already; give another with --config");
    }
    let folder = args.config.parent().unwrap_or(Path::new(""));
    let keys = folder.join("keys");
    let schema = folder.join("application.schema.json");
    let event = folder.join("order.json");
    private_files::create_folder(&keys).with_context(|| format!("making {}", keys.display()))?;
    write(&args.config, text)?;
    write_missing(&schema, format!("{:#}\n", settings::schema(registry)))?;
    let sample = filled(EVENT, &args.account, region, args.environment)?;
    write_missing(&event, sample)?;
    let key = KeyName::new(region, args.environment);
    let key_file = keys.join(format!("{key}.pem"));
    for line in [
        format!(
            "wrote {config}, {} for your editor, and a sample event, {}.",
            schema.display(),
            event.display()
        ),
        "Next:".to_owned(),
        format!(
            "  1. put Fluent's public key for {key} into {} (one line of base64, or PEM)",
            key_file.display()
        ),
        format!("  2. fluent-webhooks check --config {config}"),
        format!(
            "  3. fluent-webhooks routes test --event {} --config {config}",
            event.display()
        ),
        format!("  4. fluent-webhooks serve --config {config}"),
        "It listens on this machine only, until `webhook.listen` says otherwise.".to_owned(),
    ] {
        output::line(line);
    }
    Ok(())
}

fn write(path: &Path, text: String) -> anyhow::Result<()> {
    private_files::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Writes a file that may be changed since: one that is there stays.
fn write_missing(path: &Path, text: String) -> anyhow::Result<()> {
    match path.exists() {
        true => Ok(()),
        false => write(path, text),
    }
}

/// The region as Fluent spells it.
fn known_region(region: &str) -> anyhow::Result<&'static str> {
    let spelt = region.replace('-', "_");
    if let Some(known) = REGIONS.into_iter().find(|known| *known == spelt) {
        return Ok(known);
    }
    let hint = settings::nearest(&spelt, REGIONS.into_iter());
    let hint = hint.map_or(String::new(), |known| format!("; did you mean {known}?"));
    bail!(
        "there is no region `{region}`: expected {}{hint}",
        REGIONS.join(", ")
    )
}

fn filled(
    template: &str,
    account: &str,
    region: &str,
    environment: Environment,
) -> anyhow::Result<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if account.is_empty() || !account.chars().all(is_plain) {
        bail!("expected an account of letters, digits, `_`, `-` and `.`, such as ACME");
    }
    Ok(template
        .replace("{account}", account)
        .replace("{region}", region)
        .replace("{environment}", environment.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use settings::SettingsTree;

    const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config");

    #[test]
    fn what_init_writes_is_valid_once_the_key_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("application.yml");
        std::fs::write(
            &config,
            filled(TEMPLATE, "ACME", "sydney", Environment::Sandbox).unwrap(),
        )
        .unwrap();
        std::fs::create_dir(folder.path().join("keys")).unwrap();
        let key = simulator::KeyPair::generate(1024)
            .unwrap()
            .public_base64()
            .unwrap();
        std::fs::write(folder.path().join("keys/sydney_sandbox.pem"), key).unwrap();

        let tree = SettingsTree::load(&config, []).unwrap();
        assert_eq!(
            tree.gateway().unwrap().account_names,
            ["ACME (sydney_sandbox)"]
        );
        assert_eq!(tree.routes(Some(&crate::registry())).unwrap().0.len(), 1);
        let settings::QueueSettings::Embedded(queue) = tree.queue().unwrap() else {
            panic!("not embedded")
        };
        assert!(queue.path.starts_with(folder.path()));
        assert!(tree.health().unwrap().is_some());
    }

    #[test]
    fn every_shipped_file_is_known_to_a_test() {
        let files = |folder: &str| {
            let folder = Path::new(CONFIG).join(folder);
            let entries = std::fs::read_dir(folder).unwrap();
            let mut names: Vec<_> = entries
                .map(|file| file.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        // The schema is compared in `schema`, the settings below.
        assert_eq!(
            files(""),
            [
                "application.schema.json",
                "application.yml",
                "cluster",
                "integrations",
                "nats",
                "observe",
                "systemd"
            ]
        );
        // Read by e2e's tests of stops.
        assert_eq!(
            files("systemd"),
            ["fluent-webhooks.service", "fluent-webhooks.socket"]
        );
        // Read below; those of load balancers by e2e's proxies.
        assert_eq!(
            files("cluster"),
            [
                "admin.yml",
                "dispatcher.yml",
                "gateway.yml",
                "haproxy.cfg",
                "nginx.conf",
                "operator.yml"
            ]
        );
        // Read by e2e's servers, and by those of docker-compose.yml.
        assert_eq!(files("nats"), ["accounts.conf", "nats.conf"]);
        // Read by e2e's Prometheus; the collector's and Grafana's by those of docker-compose.yml.
        assert_eq!(
            files("observe"),
            [
                "alerts.test.yml",
                "alerts.yml",
                "collector.yml",
                "grafana",
                "prometheus.yml"
            ]
        );
    }

    #[test]
    fn the_integrations_are_valid_and_read_all_that_is_beside_them() {
        let folder = Path::new(CONFIG).join("integrations");
        let mut templates = Vec::new();
        let mut read = String::new();
        for file in std::fs::read_dir(&folder)
            .unwrap()
            .map(|file| file.unwrap().path())
        {
            if file
                .extension()
                .is_some_and(|extension| extension == "json" || extension == "graphql")
            {
                templates.push(file.file_name().unwrap().to_string_lossy().into_owned());
                continue;
            }
            let routes = SettingsTree::load(&file, [])
                .unwrap()
                .routes(Some(&crate::registry()))
                .unwrap()
                .0;
            assert!(!routes.is_empty(), "{}", file.display());
            read.push_str(&std::fs::read_to_string(&file).unwrap());
        }
        assert_eq!(templates.len(), 9);
        let is_read = |name: &String| {
            [" ", "\n"]
                .iter()
                .any(|end| read.contains(&format!(": {name}{end}")))
        };
        templates
            .iter()
            .for_each(|name| assert!(is_read(name), "{name}"));
    }

    #[test]
    fn the_clusters_settings_are_valid() {
        let read = |name: &str, environment: &[(&str, &str)]| {
            let environment = environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            SettingsTree::load(&Path::new(CONFIG).join("cluster").join(name), environment).unwrap()
        };
        let key = simulator::KeyPair::generate(1024)
            .unwrap()
            .public_base64()
            .unwrap();
        let key = [(
            "FLUENTCOMMERCE__FLUENT_WEBHOOK_KEYS__SYDNEY_SANDBOX",
            key.as_str(),
        )];
        let gateway = read("gateway.yml", &key);
        assert_eq!(
            gateway.gateway().unwrap().account_names,
            ["ACME (sydney_sandbox)"]
        );
        assert!(gateway.spool(&gateway.queue().unwrap()).unwrap().is_some());
        let proxies = gateway.gateway().unwrap().proxies;
        assert_eq!(proxies.address_from(), settings::AddressFrom::ProxyProtocol);
        assert!(
            proxies.contains("10.94.17.10".parse().unwrap()),
            "the load balancer's"
        );
        assert!(!proxies.contains("10.94.17.11".parse().unwrap()) && proxies.warnings().is_empty());
        let compose = std::fs::read_to_string(format!("{CONFIG}/../docker-compose.yml")).unwrap();
        assert!(
            compose.contains("ipv4_address: 10.94.17.10"),
            "it is where the gateways expect it"
        );
        let dispatcher = read("dispatcher.yml", &[]);
        assert_eq!(
            dispatcher.routes(Some(&crate::registry())).unwrap().0.len(),
            1
        );
        for name in ["gateway.yml", "dispatcher.yml", "operator.yml", "admin.yml"] {
            let tree = if name == "gateway.yml" {
                read(name, &key)
            } else {
                read(name, &[])
            };
            let settings::QueueSettings::JetStream(queue) = tree.queue().unwrap() else {
                panic!("{name}")
            };
            let user = name.trim_end_matches(".yml");
            assert_eq!(
                (queue.user.as_deref(), &*queue.inbox_prefix),
                (Some(user), &*format!("_INBOX_{user}"))
            );
            let accounts = std::fs::read_to_string(format!("{CONFIG}/nats/accounts.conf")).unwrap();
            assert!(
                accounts.contains(&format!("\"_INBOX_{user}.>\"")),
                "{user} has an inbox"
            );
        }
    }

    #[test]
    fn the_shipped_settings_are_what_init_writes() {
        let shipped = include_str!("../../../../config/application.yml");
        assert_eq!(
            shipped,
            filled(TEMPLATE, "ACME", "sydney", Environment::Sandbox).unwrap()
        );
    }
}
