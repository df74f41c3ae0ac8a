//! The meaning of SQLite's errors for the process that serves a file.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use queue::QueueError;
use rusqlite::{ErrorCode, ffi};

use crate::paths::beside;

/// Reason why a group was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no room on the disk, or within our quota; the file is as it was.
    Full,
    /// Another process was writing for too long.
    Busy,
    /// This group was not written; the file is as it was.
    Refused(String),
    /// The file is no longer in its place.
    Gone,
    /// The disk or the file can't be trusted any more. A failed fsync is final: a second one
    /// could succeed without having written.
    Broken(String),
}

impl Failure {
    /// The failure that a failed write to the file at `path` means. SQLite says "disk I/O error"
    /// both for a bad disk and for a quota or limit that is reached. So the system is asked, by a
    /// write of the same extent into a file beside it.
    pub fn of_write(error: &rusqlite::Error, path: &Path) -> Self {
        let is_write = error
            .sqlite_error()
            .is_some_and(|error| error.extended_code == ffi::SQLITE_IOERR_WRITE);
        match is_write.then(|| room_error(path)).flatten() {
            Some(_) => Self::Full,
            None => Self::from(error),
        }
    }
}

impl From<&rusqlite::Error> for Failure {
    fn from(error: &rusqlite::Error) -> Self {
        if is_corruption(error) {
            return Self::Broken(error.to_string());
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ if is_short_of_room(error) => Self::Full,
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// Whether this error means that the file can't be trusted any more: its content makes no sense,
/// or nobody knows what it is. Every other error leaves the file as it was.
pub(crate) fn is_corruption(error: &rusqlite::Error) -> bool {
    const LOST: [i32; 7] = [
        ffi::SQLITE_IOERR_FSYNC,
        ffi::SQLITE_IOERR_DIR_FSYNC,
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_IOERR_READ,
        ffi::SQLITE_IOERR_SHORT_READ,
        ffi::SQLITE_IOERR_DATA,
        ffi::SQLITE_IOERR_CORRUPTFS,
    ];
    let is_damaged = matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    );
    is_damaged
        || error
            .sqlite_error()
            .is_some_and(|error| LOST.contains(&error.extended_code))
}

/// Whether there was no room for the memory that readers and the writer share beside the file.
fn is_short_of_room(error: &rusqlite::Error) -> bool {
    const SHARED: [i32; 4] = [
        ffi::SQLITE_IOERR_SHMOPEN,
        ffi::SQLITE_IOERR_SHMSIZE,
        ffi::SQLITE_IOERR_SHMLOCK,
        ffi::SQLITE_IOERR_SHMMAP,
    ];
    error
        .sqlite_error()
        .is_some_and(|error| SHARED.contains(&error.extended_code))
}

fn room_error(path: &Path) -> Option<io::ErrorKind> {
    let probe = beside(path, ".probe");
    let length = |end| fs::metadata(beside(path, end)).map_or(0, |metadata| metadata.len());
    let written = private_files::create(&probe).and_then(|file| {
        file.write_all_at(&[0xA5; 64 << 10], length("").max(length("-wal")))?;
        file.sync_all()
    });
    let _ = fs::remove_file(&probe);
    says_no_room(written.err()?.kind())
}

fn says_no_room(kind: io::ErrorKind) -> Option<io::ErrorKind> {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(kind, QuotaExceeded | StorageFull | FileTooLarge).then_some(kind)
}

impl From<Failure> for QueueError {
    fn from(failure: Failure) -> Self {
        const WRITING: &str = "writing to the file";
        match failure {
            Failure::Full => Self::Full,
            Failure::Busy => Self::unavailable(WRITING, "another process holds it"),
            Failure::Refused(why) => Self::unavailable(WRITING, why),
            Failure::Gone => Self::unavailable(WRITING, "it was removed, renamed or replaced"),
            Failure::Broken(why) => Self::Failed(why),
        }
    }
}

/// Translates the error of a read: no error that a reader meets breaks the file.
pub fn reading(error: rusqlite::Error) -> QueueError {
    const READING: &str = "reading the file";
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => {
            QueueError::unavailable(READING, "it took too long, and was ended: ask for less")
        }
        _ => QueueError::unavailable(READING, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn only_what_says_that_the_file_lies_condemns_it() {
        for code in [
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_CORRUPT_INDEX,
            ffi::SQLITE_NOTADB,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_IOERR_WRITE,
        ] {
            assert!(
                matches!(Failure::from(&error(code)), Failure::Broken(_)),
                "{code}"
            );
        }
        for code in [
            ffi::SQLITE_IOERR_GETTEMPPATH,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_CONSTRAINT_UNIQUE,
            ffi::SQLITE_CONSTRAINT_NOTNULL,
            ffi::SQLITE_TOOBIG,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_IOERR_NOMEM,
            ffi::SQLITE_IOERR_LOCK,
            ffi::SQLITE_ERROR,
        ] {
            assert!(
                matches!(Failure::from(&error(code)), Failure::Refused(_)),
                "{code}"
            );
        }
        for code in [
            ffi::SQLITE_FULL,
            ffi::SQLITE_IOERR_SHMSIZE,
            ffi::SQLITE_IOERR_SHMMAP,
        ] {
            assert_eq!(Failure::from(&error(code)), Failure::Full, "{code}");
        }
        assert_eq!(
            Failure::from(&error(ffi::SQLITE_BUSY_SNAPSHOT)),
            Failure::Busy
        );
    }

    #[test]
    fn a_write_that_fails_where_there_is_room_condemns_and_where_there_is_none_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let failure = Failure::of_write(
            &error(ffi::SQLITE_IOERR_WRITE),
            &folder.path().join("queue.db"),
        );
        assert!(matches!(failure, Failure::Broken(_)));
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            0,
            "nothing is left of the question"
        );
        // EDQUOT, ENOSPC, EFBIG; EIO, EROFS.
        for (number, is_room) in [(122, true), (28, true), (27, true), (5, false), (30, false)] {
            let kind = io::Error::from_raw_os_error(number).kind();
            assert_eq!(says_no_room(kind).is_some(), is_room, "{kind:?}");
        }
    }
}
