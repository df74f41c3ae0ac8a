//! One module for each command.

pub(crate) mod changes;
pub(crate) mod check;
pub(crate) mod cluster;
pub(crate) mod events;
pub(crate) mod init;
pub(crate) mod letters;
pub(crate) mod quarantine;
pub(crate) mod route_test;
pub(crate) mod routes;
pub(crate) mod salvage;
pub(crate) mod schema;
pub(crate) mod spool;
pub(crate) mod verify;
