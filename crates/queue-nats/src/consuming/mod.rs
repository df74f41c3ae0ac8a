//! Taking deliveries: two consumers, of the stream of events and of the retries that are due, and
//! one task that extends the leases of what it has fetched.

mod announcement;
mod byte_budget;
mod conflict;
mod consumer;
mod deadline;
mod delivery_state;
mod ensure_consumers;
mod exclusive_marker;
mod fetcher;
mod filter;
pub(crate) mod floor;
mod give_back;
mod given_back;
mod inflight;
mod lease;
mod match_change;
mod probe;
mod pull_consumer;
mod route_consumer;
mod settlement_blocks;
mod takeover;
mod unknown_keys;

pub(crate) use crate::consuming::announcement::{announce_together, undisturbed};
pub(crate) use crate::consuming::byte_budget::{ByteBudget, RouteBytes};
pub(crate) use crate::consuming::conflict::Conflicts;
pub(crate) use crate::consuming::consumer::NatsConsumer;
pub(crate) use crate::consuming::delivery_state::DeliveryState;
pub(crate) use crate::consuming::ensure_consumers::ensure_consumers;
pub(crate) use crate::consuming::fetcher::Fetcher;
pub(crate) use crate::consuming::inflight::{InFlightWriter, OF_BLOCK};
pub(crate) use crate::consuming::match_change::{FILTER, present};
pub(crate) use crate::consuming::probe::{ProbeSchedule, probe};
pub(crate) use crate::consuming::route_consumer::{KEPT_TOGETHER, RouteConsumer};
