//! Makes files and folders that other users of the machine can't read: what we keep
//! are customers' orders.
//!
//! A file is made with its mode, not changed to it afterwards, whatever the umask is: so
//! it holds in a library and in a test too. Files of an older version lose what others
//! may do when they are opened.
//!
//! Start reading at [`open_options`].

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::Mode;

/// Who else than the owner may read what this process makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileAccess {
    /// Nobody: 0600, and folders 0700.
    #[default]
    Owner,
    /// The group: 0640, and folders 0750.
    Group,
}

/// What other users may do with a file: nothing.
const OTHERS: u32 = 0o007;

/// Of the whole process, as the umask is: SQLite and the audit log have one owner.
static IS_SHARED: AtomicBool = AtomicBool::new(false);

/// Who may read what this process makes from now on.
pub fn set_access(access: FileAccess) {
    IS_SHARED.store(access == FileAccess::Group, Ordering::Relaxed);
    set_umask();
}

/// Closes also what this process makes in ways that don't come here, as far as the access
/// that is set: for the beginning of a program.
pub fn set_umask() {
    rustix::process::umask(Mode::from_raw_mode(0o777 & !folder_mode()));
}

fn file_mode() -> u32 {
    if IS_SHARED.load(Ordering::Relaxed) { 0o640 } else { 0o600 }
}

fn folder_mode() -> u32 {
    if IS_SHARED.load(Ordering::Relaxed) { 0o750 } else { 0o700 }
}

/// Opens, and makes private what it makes.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("audit.jsonl");
/// let file = private_files::open_options().create(true).append(true).open(&path)?;
/// # use std::os::unix::fs::PermissionsExt;
/// assert_eq!(file.metadata()?.permissions().mode() & 0o777, 0o600);
/// # Ok::<_, std::io::Error>(())
/// ```
pub fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(file_mode());
    options
}

/// Makes a folder, and those that it is in, where there are none. One that is there is
/// left as it is: it may be a volume that others share.
pub fn create_folder(path: &Path) -> io::Result<()> {
    match path.as_os_str().is_empty() {
        true => Ok(()),
        false => DirBuilder::new().recursive(true).mode(folder_mode()).create(path),
    }
}

/// Makes a file empty, or makes one that is there so.
pub fn create(path: &Path) -> io::Result<File> {
    open_options().write(true).create(true).truncate(true).open(path)
}

/// Writes a whole file.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    create(path)?.write_all(bytes.as_ref())
}

/// Makes the file where there is none, for a library that would make it as it likes, and
/// takes from one that is there what others may do with it.
pub fn prepare(path: &Path) -> io::Result<()> {
    let file = open_options().read(true).append(true).create(true).open(path)?;
    close_to_others(&file)
}

/// Takes from a file of an older version what others may do with it.
pub fn close_to_others(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode() & 0o777;
    match mode & OTHERS {
        0 => Ok(()),
        _ => file.set_permissions(Permissions::from_mode(mode & !OTHERS & (file_mode() | 0o700))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_the_owners_whatever_the_umask_is() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, file) = (folder.path().join("a/b"), folder.path().join("a/b/c"));
        create_folder(&inner).unwrap();
        write(&file, "x").unwrap();
        assert_eq!([mode(&inner), mode(inner.parent().unwrap()), mode(&file)], [0o700, 0o700, 0o600]);
    }

    #[test]
    fn a_file_of_an_older_version_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("queue.db");
        std::fs::write(&file, "kept").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        prepare(&file).unwrap();
        assert_eq!((mode(&file), std::fs::read_to_string(&file).unwrap().as_str()), (0o600, "kept"));
    }
}
