//! What disks do.

mod disk;
pub(crate) mod power;
