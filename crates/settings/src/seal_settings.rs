//! `fluent-connect.seal`: the keys of seals, and the verification of stored events in a
//! dispatcher.

use std::sync::Arc;

use event_model::StoredVerifier;
use schemars::JsonSchema;
use serde::Deserialize;
use verifier::{Reverifier, SealKeys, SealingKey};

use crate::error::SettingsError;
use crate::jet_stream_settings::FileSettings;
use crate::queue_settings::QueueSettings;
use crate::tree::SettingsTree;

const PATH: [&str; 2] = ["fluent-connect", "seal"];
const KEYS: [&str; 2] = ["fluentcommerce", "fluent-webhook-keys"];

/// `fluent-connect.seal`: Ed25519 keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct SealSettings {
    /// PEM: seals what is reconciled. For who reconciles, and nobody else.
    private_key: Option<FileSettings>,
    /// PEM: whose seals are believed. For dispatchers; the old one too while it is exchanged.
    public_keys: Vec<FileSettings>,
}

impl SettingsTree {
    /// The queue's settings for a process that delivers. On JetStream they have a verifier of
    /// stored events, unless `reverify` is off.
    pub fn queue_to_deliver(&self) -> Result<QueueSettings, SettingsError> {
        let mut queue = self.queue()?;
        if let QueueSettings::JetStream(settings) = &mut queue
            && settings.reverify
        {
            settings.verifier = Some(self.reverifier()?);
        }
        Ok(queue)
    }

    fn reverifier(&self) -> Result<Arc<dyn StoredVerifier>, SettingsError> {
        let ring = Arc::new(self.keys()?);
        if ring.keys().next().is_none() {
            let why = "a dispatcher on JetStream verifies again what it takes out of the streams: expected the keys that its gateways have, or `reverify: false` under fluent-connect.queue to believe whoever can write there";
            return Err(self.invalid(&KEYS, why));
        }
        let enabled = self.signature_algorithms()?;
        Ok(Arc::new(Reverifier::new(ring, enabled, self.seal_keys()?)))
    }

    /// The key that seals reconciled events.
    ///
    /// # Errors
    /// If there is none and dispatchers reverify, or it can't be read.
    pub(crate) fn sealing_key(&self) -> Result<Option<Arc<SealingKey>>, SettingsError> {
        let seal: SealSettings = self.section(&PATH)?;
        let at = [PATH[0], PATH[1], "private-key"];
        let Some(file) = seal.private_key else {
            return match self.queue()? {
                QueueSettings::JetStream(queue) if queue.reverify => {
                    let why = "what is reconciled carries a seal on JetStream, or dispatchers don't deliver it: expected `private-key: { file: ... }` (openssl genpkey -algorithm ed25519 -out seal.key), and its public half in the dispatchers' `seal.public-keys`";
                    Err(self.invalid(&at, why))
                }
                _ => Ok(None),
            };
        };
        Ok(Some(Arc::new(self.private_key(&file)?)))
    }

    fn private_key(&self, file: &FileSettings) -> Result<SealingKey, SettingsError> {
        let at = [PATH[0], PATH[1], "private-key"];
        SealingKey::parse(&self.text_of(&at, file)?)
            .map_err(|error| self.invalid(&at, &error.to_string()))
    }

    fn seal_keys(&self) -> Result<SealKeys, SettingsError> {
        let seal: SealSettings = self.section(&PATH)?;
        let mut texts = Vec::new();
        for (index, file) in seal.public_keys.iter().enumerate() {
            let at = [PATH[0], PATH[1], "public-keys", &index.to_string()];
            let text = self.text_of(&at, file)?;
            // Each key by itself first, so that the error has its location.
            SealKeys::parse([&*text]).map_err(|error| self.invalid(&at, &error.to_string()))?;
            texts.push(text);
        }
        let at = [PATH[0], PATH[1], "public-keys"];
        let keys = SealKeys::parse(texts.iter().map(String::as_str));
        let keys = keys.map_err(|error| self.invalid(&at, &error.to_string()))?;
        match seal.private_key {
            Some(file) => Ok(keys.with_own(&self.private_key(&file)?)),
            None => Ok(keys),
        }
    }

    fn text_of(&self, at: &[&str], file: &FileSettings) -> Result<String, SettingsError> {
        let path = self.folder().join(&file.file);
        let read = std::fs::read_to_string(&path).map_err(|error| {
            self.invalid(at, &format!("reading the file {}: {error}", path.display()))
        })?;
        Ok(read.trim_start_matches('\u{feff}').to_owned())
    }
}
