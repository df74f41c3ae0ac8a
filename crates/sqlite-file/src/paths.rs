//! Paths: where they lead, and the names of files beside them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{OpenError, io_error};

/// Largest number of links that are followed, as in the system (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// Follows a path to its end, also if its last part is a link, whether or not there is a file:
/// files beside it must be beside the file itself.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf, OpenError> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(to) => path = folder(&path).join(to),
            // Not a link, or nothing there yet.
            Err(_) => {
                let at = folder(&path);
                let real = at
                    .canonicalize()
                    .map_err(|source| io_error("looking at", at, source))?;
                return Ok(path
                    .file_name()
                    .map_or(real.clone(), |name| real.join(name)));
            }
        }
    }
    let source = io::Error::other("links that lead to each other");
    Err(io_error("following", &path, source))
}

/// The folder that a path is in.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// `path` with `suffix` at its end.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_path_leads_where_its_links_lead_also_to_what_is_not_there_yet() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        fs::create_dir(real.join("data")).unwrap();
        symlink("data/queue.db", real.join("link.db")).unwrap();
        symlink("link.db", real.join("again.db")).unwrap();
        symlink("data", real.join("folder")).unwrap();
        for name in [
            "again.db",
            "link.db",
            "folder/queue.db",
            "data/../data/queue.db",
            "data/queue.db",
        ] {
            assert_eq!(
                resolve(&real.join(name)).unwrap(),
                real.join("data/queue.db"),
                "{name}"
            );
        }
        symlink("round.db", real.join("round.db")).unwrap();
        assert!(resolve(&real.join("round.db")).is_err());
    }
}
