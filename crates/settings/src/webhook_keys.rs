//! `fluentcommerce.fluent-webhook-keys`: the public keys whose signatures are valid.

use std::path::PathBuf;

use event_model::KeyName;
use serde_json::Value;
use verifier::{KeyRing, PublicKey};

use crate::error::SettingsError;
use crate::tree::{Data, Node, SettingsTree};

const PATH: [&str; 2] = ["fluentcommerce", "fluent-webhook-keys"];

/// The keys of the settings, in the order in which they are listed.
#[derive(Default)]
struct RawKeys {
    in_use: Vec<(KeyName, PublicKey)>,
    retired: Vec<(KeyName, PublicKey)>,
}

impl SettingsTree {
    /// The ring of all keys, by name. A key is base64 or PEM, `{ file: path }`, or `{ key: ...
    /// }`, the latter two with `retired: true` if it is out of use. While keys are exchanged, a
    /// name has a list of these.
    pub fn keys(&self) -> Result<KeyRing, SettingsError> {
        let mut keys = RawKeys::default();
        let is_table = |node: &Node| matches!(node.data, Data::Map(_)) || node.value().is_null();
        if self.at(&PATH).is_some_and(|node| !is_table(node)) {
            let why =
                "expected a table such as { sydney_sandbox: { file: keys/sydney_sandbox.pem } }";
            return Err(self.invalid(&PATH, why));
        }
        if let Some(Node {
            data: Data::Map(entries),
            ..
        }) = self.at(&PATH)
        {
            for (name, _, node) in entries {
                self.keys_named(name, node, &mut keys)?;
            }
        }
        let ring = KeyRing::with_retired(keys.in_use, keys.retired);
        ring.map_err(|error| self.invalid(&PATH, &error.to_string()))
    }

    /// The names under which there are keys in use, whether or not these can be read.
    pub(crate) fn key_names(&self) -> Vec<KeyName> {
        let Some(Node {
            data: Data::Map(entries),
            ..
        }) = self.at(&PATH)
        else {
            return Vec::new();
        };
        let in_use = entries.iter().filter(|(.., node)| is_in_use(&node.value()));
        in_use.filter_map(|(name, ..)| key_name(name)).collect()
    }

    fn keys_named(&self, name: &str, node: &Node, keys: &mut RawKeys) -> Result<(), SettingsError> {
        let path = [PATH[0], PATH[1], name];
        let key_name = key_name(name).ok_or_else(|| {
            self.invalid(
                &path,
                "expected a name such as sydney_sandbox: <region>_sandbox or <region>_production",
            )
        })?;
        match &node.data {
            Data::List(nodes) => {
                let left = nodes.iter().filter(|node| !node.is_removed());
                for (index, node) in left.enumerate() {
                    let index = index.to_string();
                    self.add_key(&key_name, &[&path[..], &[&index]].concat(), node, keys)?;
                }
                Ok(())
            }
            Data::Map(_) | Data::Scalar(_) | Data::Removed => {
                self.add_key(&key_name, &path, node, keys)
            }
        }
    }

    fn add_key(
        &self,
        name: &KeyName,
        path: &[&str],
        node: &Node,
        keys: &mut RawKeys,
    ) -> Result<(), SettingsError> {
        const EXPECTED: &str = "expected a public key as base64 or PEM, `{ file: path }` or `{ key: ... }`; the latter two with `retired: true` where it is out of use";
        let (text, is_retired) = match node.value() {
            Value::String(text) => (text, false),
            Value::Object(table) => {
                let is_known = |key: &String| ["file", "key", "retired"].contains(&key.as_str());
                if !table.keys().all(is_known) {
                    return Err(self.invalid(path, EXPECTED));
                }
                let is_retired = match table.get("retired") {
                    None => false,
                    Some(Value::Bool(is_retired)) => *is_retired,
                    Some(_) => {
                        return Err(
                            self.invalid(path, "expected `retired: true` or `retired: false`")
                        );
                    }
                };
                match (table.get("file"), table.get("key")) {
                    (Some(Value::String(file)), None) => (self.key_file(path, file)?, is_retired),
                    (None, Some(Value::String(text))) => (text.clone(), is_retired),
                    _ => return Err(self.invalid(path, EXPECTED)),
                }
            }
            _ => return Err(self.invalid(path, EXPECTED)),
        };
        let key =
            PublicKey::parse(&text).map_err(|error| self.invalid(path, &error.to_string()))?;
        let listed = if is_retired {
            &mut keys.retired
        } else {
            &mut keys.in_use
        };
        listed.push((name.clone(), key));
        Ok(())
    }

    fn key_file(&self, path: &[&str], file: &str) -> Result<String, SettingsError> {
        let resolved: PathBuf = self.folder().join(file);
        std::fs::read_to_string(&resolved).map_err(|error| {
            self.invalid(
                path,
                &format!("reading the key file {}: {error}", resolved.display()),
            )
        })
    }
}

fn key_name(written: &str) -> Option<KeyName> {
    let plain = written.trim_matches(['[', ']']).replace('-', "_");
    plain.parse().ok()
}

/// Whether a key is in use, or one of a list of them.
fn is_in_use(written: &Value) -> bool {
    match written {
        Value::Array(keys) => keys.iter().any(is_in_use),
        one => one.get("retired") != Some(&Value::Bool(true)),
    }
}
