//! The error of opening a file.

use std::io;
use std::path::{Path, PathBuf};

/// Reason why a file can't be opened here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process serves the file.
    #[error(
        "{0} is being served by another process; stop that one, or give this one a path of its own"
    )]
    InUse(PathBuf),
    /// The file is on a network file system: SQLite's log needs shared memory, which those lack.
    #[error("{0} is on a network file system, where SQLite loses data: expected a local disk")]
    NetworkFileSystem(PathBuf),
    /// The file was written by a newer version of this program.
    #[error(
        "{path} has format {found}, this program knows {known}: use the version that wrote it, or a newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest format that this version knows.
        known: i64,
    },
    /// The file was written by an older version of this program.
    #[error(
        "{path} has format {found}, and this program works with {known} alone: let the version that wrote it deliver what it holds, and work off its dead letters and quarantine; then move the file away, or give this one a path of its own"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The format that this version knows.
        known: i64,
    },
    /// The file is another kind of ours.
    #[error(
        "{path} is not a {expected}'s file but another of ours: expected the path of a {expected}"
    )]
    AnotherKind {
        /// The file.
        path: PathBuf,
        /// The kind that was to be opened.
        expected: &'static str,
    },
    /// The file is another program's.
    #[error(
        "{path} is {found}, and was left as it is: expected a file of this program, or a path where there is none yet"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Description of what it seems to be.
        found: &'static str,
    },
    /// The operating system reported an error.
    #[error("{action} {path}")]
    Io {
        /// The action that failed, as a gerund phrase.
        action: &'static str,
        /// The file that it was for.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There is no such file, or it is empty.
    #[error("there is no {expected} at {path}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The kind that was expected there.
        expected: &'static str,
    },
    /// SQLite reported an error, also for a new file.
    #[error("opening {path}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
}

pub(crate) fn io_error(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
