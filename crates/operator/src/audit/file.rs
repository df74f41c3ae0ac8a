//! The audit log's file: appended to by every process of this machine, and bounded.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Size at which the file is rotated: months of what people do, and no more than an editor opens.
const MAX_BYTES: u64 = 16 << 20;

/// Rotated files that are kept. With the current one they take 128 MiB: callers with the role
/// `operate` must not be able to fill the disk of the queue.
pub const OLD_AUDIT_LOGS: u32 = 7;

/// Bytes that are read at a time, from the end of a file to its begin.
const CHUNK: u64 = 256 << 10;

/// The files of the log.
#[derive(Clone, Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    max_bytes: u64,
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            max_bytes: MAX_BYTES,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line, and returns when it is on the disk.
    pub(super) fn append(&self, line: &[u8]) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            private_files::create_folder(folder)?;
        }
        let mut file = self.open_alone()?;
        let size = file.metadata()?.len();
        if size > 0 && size + line.len() as u64 > self.max_bytes {
            match self.put_away() {
                Ok(()) => file = self.open_alone()?,
                // With `chattr +a` renaming fails, and the administrator rotates the file.
                Err(error) => tracing::warn!(%error, "the audit log can't be put away, and grows"),
            }
        }
        file.write_all(line)?;
        file.sync_data()
    }

    /// The file, locked against other writers until it is closed.
    fn open_alone(&self) -> io::Result<File> {
        loop {
            let file = private_files::open_options()
                .create(true)
                .append(true)
                .open(&self.path)?;
            private_files::close_to_others(&file)?;
            file.lock()?;
            // Another process may have rotated it during the wait for the lock.
            let is_current = |at: std::fs::Metadata| Ok(at.ino() == file.metadata()?.ino());
            match std::fs::metadata(&self.path).and_then(is_current) {
                Ok(true) => return Ok(file),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn put_away(&self) -> io::Result<()> {
        for number in (1..OLD_AUDIT_LOGS).rev() {
            match std::fs::rename(self.older(number), self.older(number + 1)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
        }
        std::fs::rename(&self.path, self.older(1))
    }

    /// The path of the file that was rotated `number` times ago.
    fn older(&self, number: u32) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        name.into()
    }

    /// The newest lines that `read` understands, the newest first.
    pub(super) fn newest<T>(
        &self,
        limit: usize,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        let files = std::iter::once(self.path.clone())
            .chain((1..=OLD_AUDIT_LOGS).map(|number| self.older(number)));
        for path in files {
            let Some(mut lines) = LinesBack::open(&path)? else {
                break;
            };
            while found.len() < limit
                && let Some(line) = lines.previous()?
            {
                found.extend(read(&line));
            }
        }
        Ok(found)
    }
}

/// Reads a file's lines from the last to the first, so that no number of long lines at its end
/// hides those before them.
#[derive(Debug)]
struct LinesBack {
    file: File,
    /// Everything before it is to be read yet.
    begin: u64,
    /// What was read and not returned.
    rest: Vec<u8>,
}

impl LinesBack {
    /// `None` if the file does not exist.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let begin = file.metadata()?.len();
        Ok(Some(Self {
            file,
            begin,
            rest: Vec::new(),
        }))
    }

    /// Returns the line before those that were returned; `None` at the begin of the file.
    fn previous(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = self.rest.len();
        loop {
            let end = self.rest[..searched]
                .iter()
                .rposition(|byte| *byte == b'\n');
            if let Some(end) = end {
                let line = self.rest.split_off(end + 1);
                self.rest.truncate(end);
                return Ok(Some(line));
            }
            if self.begin == 0 {
                let first = std::mem::take(&mut self.rest);
                return Ok((!first.is_empty()).then_some(first));
            }
            searched = self.read_chunk()?;
        }
    }

    /// Puts the bytes before `rest` in front of it, and returns their number.
    fn read_chunk(&mut self) -> io::Result<usize> {
        let length = self.begin.min(CHUNK);
        self.begin -= length;
        self.file.seek(SeekFrom::Start(self.begin))?;
        let mut bytes = Vec::new();
        (&self.file).take(length).read_to_end(&mut bytes)?;
        let read = bytes.len();
        bytes.append(&mut self.rest);
        self.rest = bytes;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(line: &[u8]) -> Option<u64> {
        std::str::from_utf8(line).ok()?.trim().parse().ok()
    }

    #[test]
    fn what_may_operate_can_not_fill_the_disk_and_the_newest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = LogFile {
            max_bytes: 100,
            ..LogFile::new(folder.path().join("audit.jsonl"))
        };
        for line in 0..1000_u64 {
            log.append(format!("{line:09}\n").as_bytes()).unwrap();
        }
        let sizes: Vec<u64> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|it| it.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len() as u32, OLD_AUDIT_LOGS + 1);
        assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
        assert_eq!(log.newest(3, number).unwrap(), [999, 998, 997]);
        let all = log.newest(1000, number).unwrap();
        assert!(
            all.len() > 70 && all.is_sorted_by(|a, b| *a == b + 1),
            "across files: {}",
            all.len()
        );
    }

    #[test]
    fn long_lines_hide_nothing_before_them() {
        let folder = tempfile::tempdir().unwrap();
        let log = LogFile::new(folder.path().join("audit.jsonl"));
        log.append(b"1\n").unwrap();
        let long = [vec![b'x'; 600 << 10], vec![b'\n']].concat();
        for _ in 0..12 {
            log.append(&long).unwrap();
        }
        log.append(b"2\n3\n").unwrap();
        for _ in 0..20 {
            log.append(&long).unwrap();
        }
        assert!(log.older(1).exists(), "it was put away meanwhile");
        log.append(b"4\n").unwrap();
        assert_eq!(log.newest(10, number).unwrap(), [4, 3, 2, 1]);
        assert_eq!(log.newest(2, number).unwrap(), [4, 3]);
        assert!(log.newest(0, number).unwrap().is_empty());
    }

    #[test]
    fn several_processes_put_it_away_and_no_line_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.jsonl");
        std::thread::scope(|scope| {
            for writer in 0..4_u64 {
                let log = LogFile {
                    max_bytes: 1000,
                    ..LogFile::new(path.clone())
                };
                scope.spawn(move || {
                    (0..100).for_each(|line| {
                        log.append(format!("{:09}\n", writer * 100 + line).as_bytes())
                            .unwrap()
                    });
                });
            }
        });
        let log = LogFile::new(path);
        let mut all = log.newest(1000, number).unwrap();
        all.sort_unstable();
        assert_eq!(all, (0..400).collect::<Vec<_>>());
    }
}
