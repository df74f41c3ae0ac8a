//! The stores of a queue file, which may be used beside the process that serves it.

pub(crate) mod attempts;
mod connections;
pub(crate) mod history;
pub(crate) mod letters;
mod marks;
pub(crate) mod quarantined;
pub(crate) mod refused;
pub(crate) mod routes;
pub(crate) mod salvage;
pub(crate) mod same_ids;
mod stores;

pub use crate::beside::connections::Beside;
