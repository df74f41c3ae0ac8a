//! Everything that is handed out: the tail reader, the routes' buffers, and
//! those who take from them.

pub(crate) mod consumer;
pub(crate) mod feeder;
pub(crate) mod lanes;
pub(crate) mod ready;
pub(crate) mod route;
