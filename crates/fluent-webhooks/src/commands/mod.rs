//! One module for each command.

pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod certificate;
pub(crate) mod changes;
pub(crate) mod check;
pub(crate) mod cluster;
pub(crate) mod deliveries;
pub(crate) mod events;
#[cfg(test)]
mod every_key;
pub(crate) mod init;
pub(crate) mod jobs;
pub(crate) mod letters;
pub(crate) mod logins;
pub(crate) mod operate;
pub(crate) mod processes;
pub(crate) mod quarantine;
pub(crate) mod reconcile;
pub(crate) mod reconciler;
pub(crate) mod refused;
pub(crate) mod replay;
pub(crate) mod route_test;
pub(crate) mod routes;
pub(crate) mod salvage;
pub(crate) mod schema;
pub(crate) mod send_test;
pub(crate) mod spool;
pub(crate) mod status;
pub(crate) mod verify;
