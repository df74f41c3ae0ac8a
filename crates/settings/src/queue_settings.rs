use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::SettingsError;
use crate::tree::Tree;
use crate::values::{Size, Time};

/// Below this, Fluent's own last retry (about 25 h after the first) would be
/// taken for a new event.
const MIN_DEDUP_WINDOW: Duration = Duration::from_hours(27);

/// Smallest size limit: room for the tables and a burst.
const MIN_RETENTION_BYTES: u64 = 16 << 20;

/// `fluent-connect.queue`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct QueueSettings {
    /// `embedded`: one file, served by one process.
    pub kind: QueueKind,
    /// The file.
    pub path: PathBuf,
    /// How long an id is known; at least 27h.
    pub dedup_window: Time,
    /// How long settled events are kept.
    pub retention: RetentionSettings,
}

/// Which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum QueueKind {
    /// One SQLite file.
    Embedded,
}

/// `fluent-connect.queue.retention`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionSettings {
    /// Settled events older than this are removed.
    pub age: Time,
    /// Above this size the oldest settled ones are; full of unsettled ones,
    /// new ones are refused. At least 16MiB.
    pub bytes: Size,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            kind: QueueKind::Embedded,
            path: PathBuf::from("data/queue.db"),
            dedup_window: Time(Duration::from_hours(72)),
            retention: RetentionSettings::default(),
        }
    }
}

impl Default for RetentionSettings {
    fn default() -> Self {
        Self { age: Time(Duration::from_hours(7 * 24)), bytes: Size(10 << 30) }
    }
}

impl Tree {
    /// Reads which queue to use. Its path is resolved.
    pub fn queue(&self) -> Result<QueueSettings, SettingsError> {
        const PATH: [&str; 2] = ["fluent-connect", "queue"];
        let kind = [PATH[0], PATH[1], "kind"];
        if self.value_at(&kind) == "jetstream" {
            return Err(self.invalid(
                &kind,
                "`jetstream` is planned, but this version does not have it: expected `embedded`",
            ));
        }
        let mut queue: QueueSettings = self.section(&PATH)?;
        if queue.dedup_window.0 < MIN_DEDUP_WINDOW {
            let why =
                "below 27h Fluent's own last retry would be taken for a new event: expected 27h or more";
            return Err(self.invalid(&[PATH[0], PATH[1], "dedup-window"], why));
        }
        if queue.retention.bytes.0 < MIN_RETENTION_BYTES {
            return Err(self.invalid(&[PATH[0], PATH[1], "retention", "bytes"], "expected 16MiB or more"));
        }
        queue.path = self.folder().join(&queue.path);
        Ok(queue)
    }
}
