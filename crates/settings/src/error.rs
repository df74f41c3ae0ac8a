//! The error of reading settings: the location, the key, what was expected, and the next step.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::tree::Location;

/// Most mistakes that are shown at once: nobody mends more before the next look.
const MAX_SHOWN: usize = 20;

/// The mistake in the settings, and its location. Never shows a value that could be a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file is not there, or this process may not read it.
    #[error("reading {file}{}", hint(source))]
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
        /// The problem there, and where to look.
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
    #[error("{}", Located(.place, .path, .message))]
    Invalid {
        /// The location at which it was written.
        place: Location,
        /// Its keys, joined by dots.
        path: String,
        /// Its keys, for who looks for further mistakes.
        keys: Vec<String>,
        /// The expected value, and what to do.
        message: String,
    },
    /// More than one mistake, in the order of the file.
    #[error("{}", MistakeList(.0))]
    Several(Vec<SettingsError>),
}

impl SettingsError {
    /// Makes one error of all that were found, without those that say the same; `None` if there
    /// are none.
    pub fn of_all(found: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut all: Vec<Self> = Vec::new();
        for error in found.into_iter().flat_map(Self::into_each) {
            let text = error.to_string();
            if !all.iter().any(|known| known.to_string() == text) {
                all.push(error);
            }
        }
        // Stable: mistakes of one line stay in the order in which they were found.
        all.sort_by_key(Self::line);
        match all.len() {
            0 | 1 => all.pop(),
            _ => Some(Self::Several(all)),
        }
    }

    /// The mistakes that this error has, each by itself.
    pub fn into_each(self) -> Vec<Self> {
        match self {
            Self::Several(all) => all,
            one => vec![one],
        }
    }

    /// The line of the file; what the environment says comes last.
    fn line(&self) -> usize {
        let place = match self {
            Self::Unreadable { .. } | Self::Several(_) => return 0,
            Self::NotYaml { place, .. }
            | Self::Override { place, .. }
            | Self::Invalid { place, .. } => place,
        };
        match place {
            Location::File { line, .. } => *line,
            Location::Environment(_) => usize::MAX,
        }
    }
}

/// What helps next, if a file can't be read.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => "; `fluent-webhooks init` writes one to begin with",
        _ => "",
    }
}

/// A message with its location and its keys; the file as a whole has none.
struct Located<'e>(&'e Location, &'e str, &'e str);

impl fmt::Display for Located<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(place, path, message) = self;
        match path.is_empty() {
            true => write!(f, "{place}: {message}"),
            false => write!(f, "{place}: {path}: {message}"),
        }
    }
}

struct MistakeList<'e>(&'e [SettingsError]);

impl fmt::Display for MistakeList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} mistakes in the settings:", self.0.len())?;
        for error in self.0.iter().take(MAX_SHOWN) {
            write!(f, "\n  {error}")?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}
