//! What disks do.

mod disk;
mod power;
