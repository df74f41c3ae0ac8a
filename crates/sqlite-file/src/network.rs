//! File systems on which SQLite loses data.

use std::path::Path;

use crate::error::{OpenError, io_error};

/// `f_type` of file systems on which SQLite's log is unsafe: NFS, SMB, SMB2,
/// CIFS, AFS, Ceph, Coda (linux/magic.h).
const NETWORK_FILE_SYSTEMS: [u64; 7] = [
    0x6969,
    0x517B,
    0xFE53_4D42,
    0xFF53_4D42,
    0x5346_414F,
    0x00C3_6400,
    0x7375_7245,
];

/// Refuses a path in a folder of a network file system.
pub(crate) fn refuse_network(folder: &Path, path: &Path) -> Result<(), OpenError> {
    let system =
        rustix::fs::statfs(folder).map_err(|error| io_error("looking at", folder, error.into()))?;
    let kind = u64::try_from(system.f_type).unwrap_or(0) & 0xFFFF_FFFF;
    if NETWORK_FILE_SYSTEMS.contains(&kind) {
        return Err(OpenError::NetworkFileSystem(path.to_owned()));
    }
    Ok(())
}
