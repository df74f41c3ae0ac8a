//! The file itself: its tables, its rows, who holds it, what its errors mean, and its door.

pub(crate) mod counters;
pub(crate) mod door;
pub(crate) mod failure;
pub(crate) mod held;
pub(crate) mod refs;
pub(crate) mod rows;
pub(crate) mod schema;
