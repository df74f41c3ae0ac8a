//! The stores of a queue file, which may be used beside the process that serves it.

mod admin;
pub(crate) mod attempts;
pub(crate) mod backup;
pub(crate) mod connections;
mod facts;
pub(crate) mod history;
pub(crate) mod letters;
pub(crate) mod quarantined;
pub(crate) mod rejected;
pub(crate) mod routes;
pub(crate) mod salvage;
pub(crate) mod same_ids;

pub use crate::stores::connections::SqliteStores;
