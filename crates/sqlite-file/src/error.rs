//! Why a file can't be opened.

use std::io;
use std::path::{Path, PathBuf};

/// Why a file can't be opened here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process serves this file.
    #[error("{0} is being served by another process; stop that one, or give this one a path of its own")]
    InUse(PathBuf),
    /// SQLite's log needs shared memory, which network file systems lack.
    #[error("{0} is on a network file system, where SQLite loses data: expected a local disk")]
    NetworkFileSystem(PathBuf),
    /// Written by a newer version of this program.
    #[error(
        "{path} has format {found}, this program knows {known}: use the version that wrote it, or a newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// Written by an older version of this program.
    #[error(
        "{path} has format {found}, and this program works with {known} alone: let the version that wrote it deliver what it holds, and work off its dead letters and quarantine; then move the file away, or give this one a path of its own"
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The one that is known here.
        known: i64,
    },
    /// It holds something else.
    #[error("{path} is not a {expected}'s file but another of ours: expected the path of a {expected}")]
    AnotherKind {
        /// The file.
        path: PathBuf,
        /// What was to be opened.
        expected: &'static str,
    },
    /// Another program's.
    #[error(
        "{path} is {found}, and was left as it is: expected a file of this program, or a path where there is none yet"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        found: &'static str,
    },
    /// The operating system refused.
    #[error("{action} {path}")]
    Io {
        /// What was being attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no such file, or nothing in it.
    #[error("there is no {expected} at {path}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was expected there.
        expected: &'static str,
    },
    /// SQLite refused, on a new file too.
    #[error("opening {path}")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
}

pub(crate) fn io_error(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { action, path: path.to_owned(), source }
}
