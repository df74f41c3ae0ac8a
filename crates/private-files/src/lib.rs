//! Creation of files and folders that other users of the machine can't read: they have customers'
//! orders in them.
//!
//! A file is created with its mode, not changed to it afterwards, whatever the umask is: so this
//! works in a library and in a test, too. A file that is there already gets the same permissions
//! when it is opened: it may be of an older version, or of before a change of the settings.
//!
//! Start reading at [`open_options`].

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::Mode;

/// The users besides the owner who may read the files that this process creates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileAccess {
    /// Nobody: 0600, and folders 0700.
    #[default]
    Owner,
    /// The group: 0640, and folders 0750.
    Group,
}

/// The permissions of other users, which are removed.
const OTHERS: u32 = 0o007;

/// The permissions of the group, and its permission to read.
const GROUP: u32 = 0o070;
const GROUP_READS: u32 = 0o040;

/// For the whole process, as the umask is: SQLite and the audit log have one owner.
static ACCESS: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Nobody has said who may read: new files are the owner's, and the group keeps what it may do with
/// others.
const UNKNOWN: u8 = 0;
const OWNER: u8 = 1;
const OWNER_AND_GROUP: u8 = 2;

/// Sets who may read the files that this process creates, or opens by this crate, from now on.
pub fn set_access(access: FileAccess) {
    let value = match access {
        FileAccess::Owner => OWNER,
        FileAccess::Group => OWNER_AND_GROUP,
    };
    ACCESS.store(value, Ordering::Relaxed);
    set_umask();
}

fn is_shared() -> bool {
    ACCESS.load(Ordering::Relaxed) == OWNER_AND_GROUP
}

/// Sets the umask, so that files which are created in other ways have no wider access than is
/// set. For the beginning of a program.
pub fn set_umask() {
    rustix::process::umask(Mode::from_raw_mode(0o777 & !folder_mode()));
}

fn file_mode() -> u32 {
    if is_shared() { 0o640 } else { 0o600 }
}

fn folder_mode() -> u32 {
    if is_shared() { 0o750 } else { 0o700 }
}

/// Options for opening a file that is private if it is created.
///
/// ```
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("audit.jsonl");
/// let file = fluent_private_files::open_options().create(true).append(true).open(&path)?;
/// # use std::os::unix::fs::PermissionsExt;
/// assert_eq!(file.metadata()?.permissions().mode() & 0o777, 0o600);
/// # Ok::<_, std::io::Error>(())
/// ```
pub fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(file_mode());
    options
}

/// Creates a folder, and those above it, if they do not exist. An existing folder is not changed:
/// it may be a volume that others share.
pub fn create_folder(path: &Path) -> io::Result<()> {
    match path.as_os_str().is_empty() {
        true => Ok(()),
        false => DirBuilder::new()
            .recursive(true)
            .mode(folder_mode())
            .create(path),
    }
}

/// Creates an empty file, or empties an existing one.
pub fn create(path: &Path) -> io::Result<File> {
    open_options()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
}

/// Writes a whole file, and creates it if it does not exist.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    create(path)?.write_all(bytes.as_ref())
}

/// Creates the file if it does not exist, before a library would create it with its own mode, and
/// sets the permissions of an existing one as [`close_to_others`] does.
pub fn prepare(path: &Path) -> io::Result<()> {
    let file = open_options()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    close_to_others(&file)
}

/// Removes other users' permissions from an existing file, and gives the group those that were
/// set with [`set_access`]. Only the file's owner can change the group's.
///
/// # Errors
/// If others have permissions that can't be removed.
pub fn close_to_others(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode() & 0o777;
    let wanted = wanted(mode, ACCESS.load(Ordering::Relaxed));
    if wanted == mode {
        return Ok(());
    }
    match file.set_permissions(Permissions::from_mode(wanted)) {
        Err(error) if mode & OTHERS == 0 && error.kind() == io::ErrorKind::PermissionDenied => {
            Ok(())
        }
        set => set,
    }
}

/// The permissions that a file of this mode is to have.
fn wanted(mode: u32, access: u8) -> u32 {
    match access {
        OWNER => mode & !GROUP & !OTHERS,
        OWNER_AND_GROUP => mode & !GROUP & !OTHERS | GROUP_READS,
        _ if mode & OTHERS == 0 => mode,
        _ => mode & !GROUP & !OTHERS,
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
        let inner = folder.path().join("a/b");
        let file = folder.path().join("a/b/c");
        create_folder(&inner).unwrap();
        write(&file, "x").unwrap();
        assert_eq!(
            [mode(&inner), mode(inner.parent().unwrap()), mode(&file)],
            [0o700, 0o700, 0o600]
        );
    }

    #[test]
    fn an_existing_file_gets_the_access_that_is_set() {
        for (before, access, after) in [
            (0o644, UNKNOWN, 0o600),
            (0o640, UNKNOWN, 0o640),
            (0o644, OWNER, 0o600),
            (0o640, OWNER, 0o600),
            (0o660, OWNER_AND_GROUP, 0o640),
            (0o600, OWNER_AND_GROUP, 0o640),
            (0o400, OWNER_AND_GROUP, 0o440),
        ] {
            assert_eq!(wanted(before, access), after, "{before:o} with {access}");
        }
    }

    #[test]
    fn a_file_of_an_older_version_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("queue.db");
        std::fs::write(&file, "kept").unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        prepare(&file).unwrap();
        assert_eq!(
            (
                mode(&file),
                std::fs::read_to_string(&file).unwrap().as_str()
            ),
            (0o600, "kept")
        );
    }
}
