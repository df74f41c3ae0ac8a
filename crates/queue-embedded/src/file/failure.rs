use queue::QueueError;
use rusqlite::ErrorCode;

/// What an error of SQLite means for the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The disk is full; the file is as it was.
    Full,
    /// Somebody else was writing for too long.
    Busy,
    /// The disk or the file can't be trusted any more. A failed fsync is
    /// final: asking again could be answered with a lie.
    Broken(String),
}

impl From<&rusqlite::Error> for Failure {
    fn from(error: &rusqlite::Error) -> Self {
        if let Some(failure) = passing(error) {
            return failure;
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// I/O errors that say nothing against the file: there was no room or no memory
/// for what readers and the writer share beside it. `sqlite3.h`: extended codes.
pub(crate) fn passing(error: &rusqlite::Error) -> Option<Failure> {
    const IOERR_NOMEM: i32 = 3082;
    const SHM: [i32; 4] = [4618, 4874, 5130, 5386];
    match error.sqlite_error()?.extended_code {
        code if SHM.contains(&code) => Some(Failure::Full),
        IOERR_NOMEM => Some(Failure::Busy),
        _ => None,
    }
}

impl From<Failure> for QueueError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full => Self::Full,
            Failure::Busy => Self::unavailable("writing to the queue file", "another process holds it"),
            Failure::Broken(why) => Self::Failed(why),
        }
    }
}

/// For readers: nothing they meet breaks the queue.
pub(crate) fn reading(error: rusqlite::Error) -> QueueError {
    QueueError::unavailable("reading the queue file", error)
}
