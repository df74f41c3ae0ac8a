//! Tables and rows of a queue file.

pub(crate) mod counters;
pub(crate) mod needed;
pub(crate) mod redrives;
pub(crate) mod refs;
pub(crate) mod routes;
pub(crate) mod schema;
pub(crate) mod succession;
