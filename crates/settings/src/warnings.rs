//! Warnings about settings that are valid and unsafe.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::SettingsError;
use crate::queue_settings::QueueSettings;
use crate::tree::{Data, Location, Node, SettingsTree};

/// The folder where container runtimes put secrets, readable by every process of the container.
const MOUNTED: &str = "/run/secrets";

/// Tables whose file is no secret.
const PUBLIC: [&str; 3] = ["fluent-webhook-keys", "template", "query"];

/// Permissions of users who are neither the owner nor of its group.
const OTHERS: u32 = 0o007;

impl SettingsTree {
    /// Warnings for the start and for `check`.
    pub fn warnings(&self) -> Result<Vec<String>, SettingsError> {
        let mut found = match self.queue()? {
            QueueSettings::JetStream(queue) => queue.warnings(),
            QueueSettings::Embedded(_) => Vec::new(),
        };
        found.extend(self.misspelt.iter().cloned());
        let mut secrets = Vec::new();
        collect_secrets(&self.root, &mut secrets);
        let folder = self.folder();
        found.extend(
            secrets
                .iter()
                .filter_map(|(place, file)| exposed(place, &folder.join(file))),
        );
        Ok(found)
    }
}

/// Collects the files of secrets. Settings name them in two ways: by a table with `file`, also in
/// the table of an unknown dispatcher, and by the private `key` beside a `certificate`.
fn collect_secrets(node: &Node, found: &mut Vec<(Location, PathBuf)>) {
    match &node.data {
        Data::Scalar(_) | Data::Removed => {}
        Data::List(nodes) => nodes.iter().for_each(|node| collect_secrets(node, found)),
        Data::Map(entries) => {
            let is_identity = entries.iter().any(|(key, ..)| key == "certificate");
            for (key, place, child) in entries
                .iter()
                .filter(|(key, ..)| !PUBLIC.contains(&key.as_str()))
            {
                let is_secret = key == "file" || (key == "key" && is_identity);
                match child.value().as_str() {
                    Some(file) if is_secret => found.push((place.clone(), file.into())),
                    _ => collect_secrets(child, found),
                }
            }
        }
    }
}

/// The warning about a secret that others can read. A missing file has none: its reader fails.
fn exposed(place: &Location, file: &Path) -> Option<String> {
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    let is_exposed = mode & OTHERS != 0 && !file.starts_with(MOUNTED);
    is_exposed.then(|| {
        let file = file.display();
        format!("{place}: every user of this machine can read the secret in {file}: chmod o= it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn warnings(folder: &Path, text: &str) -> Vec<String> {
        SettingsTree::parse(&folder.join("application.yml"), text, [])
            .unwrap()
            .warnings()
            .unwrap()
    }

    #[test]
    fn a_secret_that_everybody_can_read_is_named_with_its_line_and_a_public_key_is_not() {
        let folder = tempfile::tempdir().unwrap();
        for (name, mode) in [("open", 0o644), ("ours", 0o600), ("groups", 0o640)] {
            std::fs::write(folder.path().join(name), "x").unwrap();
            std::fs::set_permissions(folder.path().join(name), PermissionsExt::from_mode(mode))
                .unwrap();
        }
        let text = "fluent-connect:
  webhook: { tls: { certificate: open, key: open } }
  routes:
  - name: r
    dispatcher: strange
    strange: { template: { file: open }, login: [ { file: open }, { file: ours }, { file: groups } ] }
fluentcommerce: { fluent-webhook-keys: { a: { file: open } } }
";
        let found = warnings(folder.path(), text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].contains("application.yml:2") && found[1].contains("application.yml:6"),
            "{found:?}"
        );
    }

    #[test]
    fn a_password_for_nats_that_leaves_in_clear_is_warned_of() {
        let nats = |servers: &str, rest: &str| {
            let text = format!(
                "fluent-connect: {{ queue: {{ kind: jetstream, servers: [{servers:?}], {rest} }} }}"
            );
            warnings(Path::new("."), &text).len()
        };
        let password = "user: u, password: { file: p }";
        assert_eq!(nats("nats://nats-1:4222", password), 1);
        assert_eq!(
            nats("nats://nats-1:4222", &format!("{password}, tls: {{}}")),
            0
        );
        assert_eq!(nats("tls://nats-1:4222", password), 0);
        assert_eq!(nats("nats://127.0.0.1:4222", password), 0);
        assert_eq!(
            nats("nats://nats-1:4222", "nkey: { file: seed }"),
            0,
            "shows no secret"
        );
    }

    #[test]
    fn a_collectors_headers_leave_in_clear_only_where_that_is_said() {
        let collector = |rest: &str| {
            let text = format!(
                "fluent-connect: {{ telemetry: {{ otlp: {{ headers: {{ k: {{ file: f }} }}, {rest} }} }} }}"
            );
            let tree = SettingsTree::parse(Path::new("application.yml"), &text, []).unwrap();
            tree.telemetry()
                .map(drop)
                .map_err(|error| error.to_string())
        };
        let refused = collector("endpoint: 'http://collector:4317'").unwrap_err();
        assert!(
            refused.contains("application.yml:1") && refused.contains("otlp.headers"),
            "{refused}"
        );
        collector("endpoint: 'http://collector:4317', allow-plaintext-credentials: true").unwrap();
        collector("endpoint: 'http://localhost:4317'").unwrap();
        collector("endpoint: 'https://collector:4317'").unwrap();
    }
}
