//! Writing to a queue file: by one thread, in groups.

pub(crate) mod claim;
pub(crate) mod clock_set;
pub(crate) mod housekeeping;
pub(crate) mod job;
pub(crate) mod publish;
pub(crate) mod queue_time;
pub(crate) mod recovery;
pub(crate) mod retention;
pub(crate) mod same_id;
pub(crate) mod settle;
pub(crate) mod subscribe;
pub(crate) mod sweep;
mod turns;
pub(crate) mod writer;
