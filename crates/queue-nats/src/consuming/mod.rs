//! Taking deliveries: two consumers, of the stream of events and of the retries that are due, and
//! one task that extends the leases of what it has fetched.

mod alone;
mod consumer;
mod deadline;
mod feed;
mod filter;
mod floor;
mod give_back;
mod inflight;
mod join;
mod lease;
mod past;
mod probe;
mod source;
mod take;
mod takeover;

pub(crate) use crate::consuming::consumer::NatsConsumer;
pub(crate) use crate::consuming::feed::Feed;
pub(crate) use crate::consuming::inflight::{InFlight, OF_BLOCK};
pub(crate) use crate::consuming::join::{FILTER, announce_together, join};
pub(crate) use crate::consuming::past::Past;
pub(crate) use crate::consuming::probe::{Probing, probe};
pub(crate) use crate::consuming::take::Taking;
