//! The file that a process serves: locked by its inode as well as by its name, and checked to be
//! in its place before any caller is told that something is safe in it.

use std::fs::{self, File, Metadata, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::error::{OpenError, io_error};
use crate::kind::OURS;
use crate::origin::FileOrigin;
use crate::paths::beside;

/// Locks on a file, for as long as it is served. Must be dropped after every connection to the
/// file: closing any descriptor of a file ends the locks that SQLite has on it (`fcntl(2)`).
#[derive(Debug)]
pub struct HeldFile {
    place: Arc<FileLocation>,
    _file: File,
    name: File,
}

/// The location of a file, and the identity that must be found there.
#[derive(Debug)]
pub struct FileLocation {
    path: PathBuf,
    /// The path in the settings, before links are followed.
    asked: PathBuf,
    own: Identity,
    /// The log and its index, once they exist.
    beside: [OnceLock<Identity>; 2],
}

/// Suffixes of the files that SQLite has beside a file while it is served.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// Device and inode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity(u64, u64);

impl From<Metadata> for Identity {
    fn from(metadata: Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

impl HeldFile {
    /// Locks the file at `path`, whose name is locked already, and creates it if it does not
    /// exist.
    pub(crate) fn take(path: &Path, asked: &Path, name: File) -> Result<Self, OpenError> {
        let made = private_files::open_options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .and_then(|file| Ok((Identity::from(file.metadata()?), file)));
        let (own, file) = made.map_err(|source| io_error("opening", path, source))?;
        lock(&file, path)?;
        let path = path.to_owned();
        let asked = asked.to_owned();
        let place = Arc::new(FileLocation {
            path,
            asked,
            own,
            beside: Default::default(),
        });
        Ok(Self {
            place,
            _file: file,
            name,
        })
    }

    /// Locks the file that is at the path now, instead of this one.
    pub(crate) fn take_again(self) -> Result<Self, OpenError> {
        Self::take(&self.place.path, &self.place.asked, self.name)
    }

    /// The location of the file, for its writer.
    pub fn location(&self) -> &Arc<FileLocation> {
        &self.place
    }
}

impl FileLocation {
    /// Whether the file and the files beside it are where they were, and where the next process
    /// will look for them. If not, what is written to them is lost when this process ends.
    pub fn is_there(&self) -> bool {
        self.is_own()
            && BESIDE
                .iter()
                .zip(&self.beside)
                .all(|(end, known)| self.is_beside(end, known))
    }

    /// Whether the file is in its place and its log was removed, with nothing instead of it. Only
    /// this process can read what the log holds.
    pub(crate) fn has_lost_log(&self) -> bool {
        let [end, _] = BESIDE;
        let [known, _] = &self.beside;
        let is_removed = known.get().is_some() && identity(&beside(&self.path, end)).is_none();
        is_removed && self.is_own()
    }

    fn is_own(&self) -> bool {
        let is_where_asked = self.asked == self.path || identity(&self.asked) == Some(self.own);
        is_where_asked && identity(&self.path) == Some(self.own)
    }

    fn is_beside(&self, end: &str, known: &OnceLock<Identity>) -> bool {
        match (identity(&beside(&self.path, end)), known.get()) {
            (Some(found), Some(known)) => found == *known,
            (Some(found), None) => known.set(found).is_ok(),
            (None, known) => known.is_none(),
        }
    }
}

fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(Identity::from)
}

/// Takes the lock of a file, or fails if another process has it.
pub(crate) fn lock(file: &File, path: &Path) -> Result<(), OpenError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(io_error("locking", path, source)),
    }
}

/// Description of the file at `path`, if it is not one of ours.
///
/// A file that is damaged from its first bytes on is told from another program's by the files
/// beside it: we leave a lock there.
pub(crate) fn foreign(path: &Path) -> Option<&'static str> {
    let left_beside = [".lock", ".untrusted", ".setting-aside"]
        .iter()
        .any(|end| beside(path, end).exists());
    match FileOrigin::of(path) {
        FileOrigin::Nobody | FileOrigin::Sqlite { application: OURS } => None,
        FileOrigin::Sqlite { .. } => Some("another program's SQLite file"),
        FileOrigin::Other if left_beside => None,
        FileOrigin::Other => Some("no SQLite file"),
    }
}
