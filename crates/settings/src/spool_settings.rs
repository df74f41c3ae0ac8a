//! `fluent-connect.spool` and `fluent-connect.acknowledge`: a gateway's disk before the queue.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::SettingsError;
use crate::queue_settings::QueueSettings;
use crate::tree::SettingsTree;
use crate::values::{ByteSize, DurationText};

const SPOOL: [&str; 2] = ["fluent-connect", "spool"];
const ACKNOWLEDGE: [&str; 2] = ["fluent-connect", "acknowledge"];

/// The range of `keep`. If it is shorter, the servers may still lose what they acknowledged; if
/// it is longer, settled events may be gone before they are read back.
const MIN_CONFIRM_AFTER: Duration = Duration::from_mins(5);
const MAX_CONFIRM_AFTER: Duration = Duration::from_mins(30);

/// Longest that an answer may wait for the queue: Fluent gives up after 14 s.
const MAX_WAIT: Duration = Duration::from_secs(4);

/// `fluent-connect.spool`: a gateway's own disk, before the queue.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SpoolSettings {
    /// The file.
    pub path: PathBuf,
    /// Largest size of the file; if it is full, events go to the queue directly. At least 16MiB.
    pub bytes: ByteSize,
    /// Time after the queue's acknowledgement at which the queue is asked whether it still has
    /// the event, before it is removed here; 5m to 30m.
    #[serde(with = "crate::values::duration")]
    #[schemars(with = "DurationText")]
    pub keep: Duration,
    /// How long the answer to a webhook waits for the queue's acknowledgement; at most 4s. After
    /// one that was late nobody waits until the queue acknowledges again.
    #[serde(with = "crate::values::duration")]
    #[schemars(with = "DurationText")]
    pub wait_for_queue: Duration,
}

/// `fluent-connect.acknowledge`: when a webhook is answered 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Acknowledge {
    /// When it is on this machine's disk.
    Spool,
    /// When the queue has it: for a gateway without a disk.
    Queue,
}

impl Default for SpoolSettings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data/spool.db"),
            bytes: ByteSize(2 << 30),
            keep: Duration::from_mins(10),
            wait_for_queue: Duration::from_millis(30),
        }
    }
}

impl SettingsTree {
    /// Reads a gateway's spool. `None` if the queue itself makes an event durable.
    pub fn spool(&self, queue: &QueueSettings) -> Result<Option<SpoolSettings>, SettingsError> {
        let acknowledge: Option<Acknowledge> =
            self.read(&ACKNOWLEDGE, &self.value_at(&ACKNOWLEDGE))?;
        let has_spool = !self.value_at(&SPOOL).is_null();
        match (queue, has_spool, acknowledge) {
            (QueueSettings::Embedded(_), false, None) => Ok(None),
            (QueueSettings::Embedded(_), true, _) => Err(self.invalid(&SPOOL, "an embedded queue is on this disk already: remove the spool, or use `queue.kind: jetstream`")),
            (QueueSettings::Embedded(_), false, Some(_)) => Err(self.invalid(&ACKNOWLEDGE, "an embedded queue leaves no choice: remove this")),
            (_, true, Some(Acknowledge::Queue)) => Err(self.invalid(&ACKNOWLEDGE, "with `queue` there is no spool: remove one of the two")),
            (_, false, Some(Acknowledge::Queue)) => Ok(None),
            (_, false, _) => Err(self.invalid(&SPOOL, "expected a table with a path: with a spool, an outage of the queue delays nobody; or say `acknowledge: queue` for a gateway without a disk")),
            (_, true, _) => self.spool_section().map(Some),
        }
    }

    fn spool_section(&self) -> Result<SpoolSettings, SettingsError> {
        let mut spool: SpoolSettings = self.section(&SPOOL)?;
        let wrong = [
            (spool.bytes.0 < 16 << 20, "bytes", "expected 16MiB or more"),
            (
                !(MIN_CONFIRM_AFTER..=MAX_CONFIRM_AFTER).contains(&spool.keep),
                "keep",
                "expected 5m to 30m: the servers write to their disks every two minutes, and must have had the time to forget",
            ),
            (
                spool.wait_for_queue > MAX_WAIT,
                "wait-for-queue",
                "expected 4s or less: Fluent gives up after 14s",
            ),
        ];
        if let Some((_, key, why)) = wrong.into_iter().find(|(is_wrong, ..)| *is_wrong) {
            return Err(self.invalid(&[SPOOL[0], SPOOL[1], key], why));
        }
        spool.path = self.folder().join(&spool.path);
        Ok(spool)
    }
}
