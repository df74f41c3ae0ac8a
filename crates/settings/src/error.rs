use std::io;
use std::path::PathBuf;

use crate::tree::Place;

/// What is wrong with the settings, and where. Never shows a value that could
/// be a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// No such file, or no right to read it.
    #[error("reading {file}; `fluent-webhooks init` writes one to begin with")]
    Unreadable {
        /// The settings file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Not YAML.
    #[error("{place}: not YAML: {message}")]
    NotYaml {
        /// Where it stopped making sense.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// A variable that leads nowhere.
    #[error("{place}: {message}")]
    Override {
        /// The variable.
        place: Place,
        /// Why it leads nowhere.
        message: String,
    },
    /// A value that does not fit.
    #[error("{place}: {path}: {message}")]
    Invalid {
        /// Where it was written.
        place: Place,
        /// Its keys, joined by dots.
        path: String,
        /// What was expected, and what to do.
        message: String,
    },
}
