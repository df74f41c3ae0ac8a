//! Handing out deliveries: the tail reader, the routes' buffers, and the consumers that take from
//! them.

pub(crate) mod consumer;
pub(crate) mod lanes;
pub(crate) mod ready;
pub(crate) mod route;
pub(crate) mod tail_reader;
