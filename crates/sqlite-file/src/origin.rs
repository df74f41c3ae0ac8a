//! Whose a file is, told by its first bytes, before anything is changed in it or beside it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Begin of every file that SQLite made.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// Place of the number of the program that made the file, by SQLite's description of its format.
const APPLICATION: std::ops::Range<usize> = 68..72;

/// Whose a file is, as far as its first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOrigin {
    /// There is no file, or there is nothing in it.
    Nobody,
    /// SQLite made it, for the program of this number; 0 for one that gave none.
    Sqlite {
        /// The file's `application_id`.
        application: i32,
    },
    /// Something else, or the first bytes are damaged.
    Other,
}

impl FileOrigin {
    /// Reads the first bytes of the file at `path`. One that can't be read is nobody's: opening
    /// it says why.
    ///
    /// ```
    /// use fluent_sqlite_file::FileOrigin;
    ///
    /// # let path = std::env::temp_dir().join(format!("origin-{}", std::process::id()));
    /// assert_eq!(FileOrigin::of(&path), FileOrigin::Nobody);
    /// std::fs::write(&path, "-----BEGIN PRIVATE KEY-----")?;
    /// assert_eq!(FileOrigin::of(&path), FileOrigin::Other);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn of(path: &Path) -> Self {
        let mut begin = Vec::new();
        let end = u64::try_from(APPLICATION.end).unwrap_or_default();
        let read = File::open(path).and_then(|file| file.take(end).read_to_end(&mut begin));
        match read {
            Err(_) | Ok(0) => Self::Nobody,
            Ok(_) if begin.starts_with(SQLITE) => {
                let number = begin
                    .get(APPLICATION)
                    .and_then(|bytes| bytes.try_into().ok());
                Self::Sqlite {
                    application: number.map_or(0, i32::from_be_bytes),
                }
            }
            Ok(_) => Self::Other,
        }
    }
}
