//! Tests that everything shipped for containers is pinned and hardened.

use saphyr::{LoadableYamlNode, YamlOwned};

use crate::root;

/// A service of `docker-compose.yml`, with the mappings that it merges in.
struct Service {
    name: String,
    layers: Vec<YamlOwned>,
}

impl Service {
    fn new(name: &str, node: &YamlOwned) -> Self {
        let mut layers = Vec::new();
        collect(node, &mut layers);
        Self {
            name: name.to_owned(),
            layers,
        }
    }

    /// The value that compose uses: the nearest one counts.
    fn get(&self, key: &str) -> &YamlOwned {
        let found = self
            .layers
            .iter()
            .find_map(|layer| layer.as_mapping_get(key));
        found.unwrap_or_else(|| panic!("{} has no `{key}`", self.name))
    }

    fn list(&self, key: &str) -> Vec<&str> {
        self.get(key)
            .as_vec()
            .unwrap()
            .iter()
            .map(|it| it.as_str().unwrap())
            .collect()
    }
}

fn collect(node: &YamlOwned, layers: &mut Vec<YamlOwned>) {
    layers.push(node.clone());
    if let Some(merged) = node.as_mapping_get("<<") {
        collect(merged, layers);
    }
}

fn services() -> Vec<Service> {
    let text = std::fs::read_to_string(root().join("docker-compose.yml")).unwrap();
    let file = YamlOwned::load_from_str(&text).unwrap().remove(0);
    let services = file
        .as_mapping_get("services")
        .unwrap()
        .as_mapping()
        .unwrap();
    services
        .iter()
        .map(|(name, node)| Service::new(name.as_str().unwrap(), node))
        .collect()
}

/// True if an image is named by its exact version: `3.2` moves, `3.2.10` does not. Our own image
/// is the one that was just built.
fn is_pinned(image: &str) -> bool {
    let (name, digest) = image
        .split_once('@')
        .map_or((image, None), |(name, digest)| (name, Some(digest)));
    let tag = name.rsplit_once(':').map_or("", |(_, tag)| tag);
    let numbers = tag
        .trim_start_matches('v')
        .split('-')
        .next()
        .unwrap_or_default();
    let parts: Vec<_> = numbers.split('.').collect();
    let needed = if name.starts_with("debian:") { 2 } else { 3 };
    let is_exact = parts.len() >= needed && parts.iter().all(|part| part.parse::<u32>().is_ok());
    is_exact && digest.is_none_or(|digest| digest.starts_with("sha256:") && digest.len() == 71)
}

#[test]
fn every_service_is_hardened_and_bounded() {
    let services = services();
    assert!(services.len() > 10);
    for service in &services {
        let name = &service.name;
        assert_eq!(service.list("cap_drop"), ["ALL"], "{name}");
        assert_eq!(
            service.list("security_opt"),
            ["no-new-privileges:true"],
            "{name}"
        );
        assert_eq!(service.get("read_only").as_bool(), Some(true), "{name}");
        assert!(
            service
                .get("pids_limit")
                .as_integer()
                .is_some_and(|most| most <= 1024),
            "{name}"
        );
        assert!(service.get("mem_limit").as_str().is_some(), "{name}");
        let logging = service.get("logging");
        assert_eq!(
            logging.as_mapping_get("driver").and_then(YamlOwned::as_str),
            Some("json-file"),
            "{name}"
        );
        let options = logging.as_mapping_get("options").unwrap();
        for bound in ["max-size", "max-file"] {
            assert!(
                options
                    .as_mapping_get(bound)
                    .and_then(YamlOwned::as_str)
                    .is_some(),
                "{name}: {bound}"
            );
        }
        let is_privileged = service
            .layers
            .iter()
            .any(|layer| layer.as_mapping_get("privileged").is_some());
        assert!(!is_privileged, "{name}");
    }
}

#[test]
fn every_image_is_of_an_exact_version() {
    for service in services() {
        let image = service.get("image").as_str().unwrap();
        assert!(is_pinned(image), "{}: {image}", service.name);
    }
    let dockerfile = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    let base: Vec<_> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("ARG ")?.split_once('='))
        .collect();
    assert_eq!(base.len(), 2, "{base:?}");
    let ignored = std::fs::read_to_string(root().join(".dockerignore")).unwrap();
    assert!(
        ignored.lines().any(|line| line == "rust-toolchain.toml"),
        "it would put the newest compiler in place of that of the image"
    );
    for (name, image) in &base {
        assert!(is_pinned(image), "{name}: {image}");
    }
    for from in dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("FROM "))
    {
        let image = from.split(' ').next().unwrap();
        let is_ours =
            image == "base" || base.iter().any(|(name, _)| image == format!("${{{name}}}"));
        assert!(is_ours, "{from}: the base images are named at the top");
    }
    for (image, expected) in [
        ("haproxy:3.2", false),
        ("debian:bookworm-slim", false),
        ("rust:1-bookworm", false),
        ("grafana/grafana", false),
        ("debian:12.12-slim@sha256:short", false),
        ("prom/prometheus:v3.5.0", true),
    ] {
        assert_eq!(is_pinned(image), expected, "{image}");
    }
}

#[test]
fn an_image_knows_public_authorities() {
    let dockerfile = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    let stages: Vec<_> = dockerfile.split("\nFROM ").skip(1).collect();
    let with_program: Vec<_> = stages
        .iter()
        .filter(|stage| stage.contains("ENTRYPOINT"))
        .collect();
    assert_eq!(
        with_program.len(),
        2,
        "one with a binary from outside, one that builds it"
    );
    for stage in with_program {
        assert!(
            stage.contains("ca-certificates.crt /etc/ssl/certs/ca-certificates.crt"),
            "{stage}"
        );
    }
}

/// The secrets of a service: the name of each, and its path in the container.
fn secrets(service: &Service) -> Vec<(String, String)> {
    let listed = service.get("secrets").as_vec().unwrap().iter();
    let one = |secret: &YamlOwned| {
        let field = |name: &str| secret.as_mapping_get(name).and_then(YamlOwned::as_str);
        match secret.as_str() {
            Some(name) => (name.to_owned(), format!("/run/secrets/{name}")),
            None => (
                field("source").unwrap().to_owned(),
                field("target").unwrap().to_owned(),
            ),
        }
    };
    listed.map(one).collect()
}

/// The paths in the text that begin with `begin`, without comments.
fn paths(text: &str, begin: &str) -> Vec<String> {
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    let found = lines.flat_map(|line| line.match_indices(begin).map(move |(at, _)| &line[at..]));
    let is_end = |c: char| c.is_whitespace() || "}],\"".contains(c);
    found
        .map(|path| path.split(is_end).next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn every_service_has_the_secrets_that_its_settings_name() {
    let read = |file: String| std::fs::read_to_string(root().join("config").join(file)).unwrap();
    let mut nats = 0;
    let mut ours = 0;
    for service in services() {
        let command = service
            .layers
            .iter()
            .any(|layer| layer.as_mapping_get("command").is_some());
        let command = if command {
            service.list("command").join(" ")
        } else {
            String::new()
        };
        let needed = if service.name.starts_with("nats-") {
            nats += 1;
            let mut needed = paths(&read("nats/nats.conf".to_owned()), "/etc/nats/");
            needed.push("/etc/nats/passwords.conf".to_owned());
            needed
        } else if let Some(file) = paths(&command, "/etc/fluent-webhooks/").pop() {
            ours += 1;
            let file = file.replacen("/etc/fluent-webhooks", "cluster", 1);
            paths(&read(file), "/run/secrets/")
        } else {
            continue;
        };
        assert!(needed.len() >= 2, "{}: {needed:?}", service.name);
        let has = secrets(&service);
        for file in needed {
            assert!(
                has.iter().any(|(_, target)| *target == file),
                "{} has no {file}",
                service.name
            );
        }
    }
    assert_eq!((nats, ours), (3, 5));
}

#[test]
fn xtask_secrets_makes_every_secret_and_each_server_has_its_own() {
    let folder = tempfile::tempdir().unwrap();
    crate::secrets::write_all(folder.path()).unwrap();
    let text = std::fs::read_to_string(root().join("docker-compose.yml")).unwrap();
    let file = YamlOwned::load_from_str(&text).unwrap().remove(0);
    let secrets = file
        .as_mapping_get("secrets")
        .unwrap()
        .as_mapping()
        .unwrap();
    for (name, secret) in secrets {
        let path = secret
            .as_mapping_get("file")
            .and_then(YamlOwned::as_str)
            .unwrap();
        let path = path.strip_prefix("secrets/").unwrap();
        // This key is made by the simulator.
        let is_made = path == "simulator.pub" || folder.path().join(path).exists();
        assert!(is_made, "{name:?}: {path}");
    }
    for service in services()
        .iter()
        .filter(|service| service.name.starts_with("nats-"))
    {
        for (name, target) in self::secrets(service) {
            let is_own =
                !target.contains("/server.") || name.starts_with(&format!("{}.", service.name));
            assert!(is_own, "{} has {name} as {target}", service.name);
        }
    }
}
