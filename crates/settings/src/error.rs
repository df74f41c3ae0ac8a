//! The error of reading settings: the location, the key, what was expected, and the next step.

use std::io;
use std::path::PathBuf;

use crate::tree::Location;

/// The mistake in the settings, and its location. Never shows a value that could be a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file is not there, or this process may not read it.
    #[error("reading {file}; `fluent-webhooks init` writes one to begin with")]
    Unreadable {
        /// The settings file.
        file: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file is not YAML.
    #[error("{place}: not YAML: {message}")]
    NotYaml {
        /// The line at which parsing failed.
        place: Location,
        /// The parser's message.
        message: String,
    },
    /// An environment variable that does not lead to a key.
    #[error("{place}: {message}")]
    Override {
        /// The variable.
        place: Location,
        /// The reason.
        message: String,
    },
    /// A value that is not valid for its key.
    #[error("{place}: {path}: {message}")]
    Invalid {
        /// The location at which it was written.
        place: Location,
        /// Its keys, joined by dots.
        path: String,
        /// The expected value, and what to do.
        message: String,
    },
}
