//! `fluent-connect.queue`: the kind of queue, and how long it keeps events.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::SettingsError;
use crate::jet_stream_settings::JetStreamSettings;
use crate::tree::SettingsTree;
use crate::values::{ByteSize, DurationText};

pub(crate) const PATH: [&str; 2] = ["fluent-connect", "queue"];

/// The shortest `dedup-window`. Below this, Fluent's own last retry (about 25 h after the
/// first) would be taken for a new event.
pub const MIN_DEDUP_WINDOW: Duration = Duration::from_hours(27);

/// Smallest size limit: room for the tables and a burst.
const MIN_RETENTION_BYTES: u64 = 16 << 20;

/// Largest size limit: a SQLite file has 281 TB at most.
const MAX_RETENTION_BYTES: u64 = 256 << 40;

/// `fluent-connect.queue`.
#[derive(Clone, Debug)]
pub enum QueueSettings {
    /// One file, served by one process.
    Embedded(EmbeddedSettings),
    /// A cluster of NATS servers.
    JetStream(Box<JetStreamSettings>),
}

/// `fluent-connect.queue` of the kind `embedded`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct EmbeddedSettings {
    /// `embedded`: one file, served by one process.
    #[schemars(extend("const" = "embedded"))]
    pub(crate) kind: String,
    /// The SQLite file.
    pub path: PathBuf,
    /// How long ids of events are known, so that a webhook that is sent again is no new event;
    /// at least 27h.
    #[serde(with = "crate::values::duration")]
    #[schemars(with = "DurationText")]
    pub dedup_window: Duration,
    /// How long settled events are kept.
    pub retention: RetentionSettings,
}

/// `fluent-connect.queue.retention`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct RetentionSettings {
    /// Settled events older than this are removed.
    #[serde(with = "crate::values::duration")]
    #[schemars(with = "DurationText")]
    pub age: Duration,
    /// Above this size the oldest settled events are removed; if it is full of unsettled ones,
    /// new webhooks are answered 503. At least 16MiB.
    pub bytes: ByteSize,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self {
            kind: "embedded".to_owned(),
            path: PathBuf::from("data/queue.db"),
            dedup_window: Duration::from_hours(72),
            retention: RetentionSettings::default(),
        }
    }
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self {
            age: Duration::from_hours(7 * 24),
            bytes: ByteSize(10 << 30),
        }
    }
}

impl SettingsTree {
    /// Reads the queue's settings, with paths resolved.
    pub fn queue(&self) -> Result<QueueSettings, SettingsError> {
        match self.value_at(&[PATH[0], PATH[1], "kind"]).as_str() {
            None | Some("embedded") => self.embedded().map(QueueSettings::Embedded),
            Some("jetstream") => self
                .jet_stream()
                .map(Box::new)
                .map(QueueSettings::JetStream),
            Some(_) => Err(self.invalid(
                &[PATH[0], PATH[1], "kind"],
                "expected `embedded` or `jetstream`",
            )),
        }
    }

    fn embedded(&self) -> Result<EmbeddedSettings, SettingsError> {
        let mut queue: EmbeddedSettings = self.section(&PATH)?;
        self.check_kept(queue.dedup_window, queue.retention)?;
        queue.path = self.folder().join(&queue.path);
        Ok(queue)
    }

    pub(crate) fn check_kept(
        &self,
        dedup_window: Duration,
        retention: RetentionSettings,
    ) -> Result<(), SettingsError> {
        if dedup_window < MIN_DEDUP_WINDOW {
            let why = "below 27h Fluent's own last retry would be taken for a new event: expected 27h or more";
            return Err(self.invalid(&[PATH[0], PATH[1], "dedup-window"], why));
        }
        if retention.bytes.0 < MIN_RETENTION_BYTES {
            return Err(self.invalid(
                &[PATH[0], PATH[1], "retention", "bytes"],
                "expected 16MiB or more",
            ));
        }
        if retention.bytes.0 > MAX_RETENTION_BYTES {
            return Err(self.invalid(
                &[PATH[0], PATH[1], "retention", "bytes"],
                "expected 256TiB at most: no file can be larger, and no disk here has that",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn window(queue: &str) -> Result<Duration, String> {
        let text = format!("fluent-connect:\n  queue: {queue}\n");
        let tree = SettingsTree::parse(Path::new("application.yml"), &text, []).unwrap();
        match tree.queue().map_err(|error| error.to_string())? {
            QueueSettings::Embedded(queue) => Ok(queue.dedup_window),
            QueueSettings::JetStream(queue) => Ok(queue.dedup_window),
        }
    }

    #[test]
    fn a_size_that_no_file_has_is_refused() {
        assert!(window("{ retention: { bytes: 200TiB } }").is_ok());
        for bytes in ["4EiB", "257TiB", "1MiB"] {
            let refused = window(&format!("{{ retention: {{ bytes: {bytes} }} }}")).unwrap_err();
            assert!(refused.contains("retention.bytes"), "{refused}");
        }
    }

    #[test]
    fn ids_are_known_for_longer_than_fluent_tries() {
        assert_eq!(window("{}").unwrap(), 72 * HOUR);
        let cluster = "kind: jetstream, servers: [\"nats://127.0.0.1:4222\"]";
        assert_eq!(window(&format!("{{ {cluster} }}")).unwrap(), 28 * HOUR);
        for more in [String::new(), format!("{cluster}, ")] {
            assert_eq!(
                window(&format!("{{ {more}dedup-window: 27h }}")).unwrap(),
                27 * HOUR
            );
            let refused = window(&format!("{{ {more}dedup-window: 26h }}")).unwrap_err();
            assert!(
                refused.contains("27h") && refused.contains("application.yml:2"),
                "{refused}"
            );
        }
    }
}
