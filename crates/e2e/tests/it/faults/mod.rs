//! What disks do.

pub(crate) mod disk;
pub(crate) mod power;
