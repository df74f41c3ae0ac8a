//! Access to the files that the product creates.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::SettingsError;
use crate::tree::SettingsTree;

/// `fluent-connect.files`: what is made on this machine, such as the queue, spools, the
/// index and the audit log.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct FilesSettings {
    /// Whether the group may read the created files, for a backup: 0640 instead of 0600, and
    /// folders 0750 instead of 0700.
    pub(crate) group_readable: bool,
}

impl SettingsTree {
    /// True if the group may read the files that are created.
    pub fn group_readable(&self) -> Result<bool, SettingsError> {
        self.section::<FilesSettings>(&["fluent-connect", "files"])
            .map(|files| files.group_readable)
    }
}
