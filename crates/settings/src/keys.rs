//! `fluentcommerce.fluent-webhook-keys`: whose signatures are believed.

use std::path::PathBuf;

use event_model::KeyName;
use serde_json::Value;
use verifier::{KeyRing, PublicKey};

use crate::error::SettingsError;
use crate::tree::{Data, Node, Tree};

const PATH: [&str; 2] = ["fluentcommerce", "fluent-webhook-keys"];

impl Tree {
    /// The ring of all keys, by name. A key is base64 or PEM, `{ file: path }`,
    /// or a list of these while keys are rotated.
    pub fn keys(&self) -> Result<KeyRing, SettingsError> {
        let mut keys = Vec::new();
        if let Some(Node { data: Data::Map(entries), .. }) = self.at(&PATH) {
            for (name, _, node) in entries {
                self.keys_named(name, node, &mut keys)?;
            }
        }
        KeyRing::new(keys).map_err(|error| self.invalid(&PATH, &error.to_string()))
    }

    fn keys_named(
        &self,
        name: &str,
        node: &Node,
        keys: &mut Vec<(KeyName, PublicKey)>,
    ) -> Result<(), SettingsError> {
        let path = [PATH[0], PATH[1], name];
        let plain = name.trim_matches(['[', ']']).replace('-', "_");
        let key_name: KeyName = plain.parse().map_err(|_| {
            self.invalid(
                &path,
                "expected a name such as sydney_sandbox: <region>_sandbox or <region>_production",
            )
        })?;
        match &node.data {
            Data::List(nodes) => {
                for (index, node) in nodes.iter().enumerate() {
                    let index = index.to_string();
                    keys.push((key_name.clone(), self.key(&[&path[..], &[&index]].concat(), node)?));
                }
            }
            Data::Map(_) | Data::Scalar(_) => keys.push((key_name, self.key(&path, node)?)),
        }
        Ok(())
    }

    fn key(&self, path: &[&str], node: &Node) -> Result<PublicKey, SettingsError> {
        let text = match node.value() {
            Value::String(text) => text,
            Value::Object(table) if table.len() == 1 => self.key_file(path, table.get("file"))?,
            _ => {
                return Err(self.invalid(path, "expected a public key as base64 or PEM, or `{ file: path }`"));
            }
        };
        PublicKey::parse(&text).map_err(|error| self.invalid(path, &error.to_string()))
    }

    fn key_file(&self, path: &[&str], file: Option<&Value>) -> Result<String, SettingsError> {
        let file =
            file.and_then(Value::as_str).ok_or_else(|| self.invalid(path, "expected `{ file: path }`"))?;
        let resolved: PathBuf = self.folder().join(file);
        std::fs::read_to_string(&resolved).map_err(|error| {
            self.invalid(path, &format!("reading the key file {}: {error}", resolved.display()))
        })
    }
}
