//! The ports that a queue implements, where events wait: one for each kind of caller.
//!
//! ```text
//! gateway ──Intake──▶ spool ──Upstream──▶ queue ──Source──▶ dispatcher: Consumer ─▶ Delivery ─▶ settle
//!    │  (or to the queue, where there is no spool) └──Stores──▶ operator, reconciler, commands
//!    └──────────── Lifecycle: whoever opened one of them ends with it ────────────┘
//! ```
//!
//! A caller is given the roles that it needs, and can't name what it may not do:
//!
//! * [`Intake`]: stores arrivals durably, or refuses them. For a gateway.
//! * [`Upstream`]: an intake that can be asked whether it still has what it acknowledged. For a
//!   spool, which is itself an intake in front of it.
//! * [`Source`]: joins routes and hands out deliveries. For a dispatcher.
//! * [`Stores`]: dead letters, quarantine, history and routes, to be listed and repeated. For an
//!   operator; [`FactAccess`] is the part of it for a process that only reports on itself.
//! * [`Lifecycle`]: failure, health and closing. For the process that opened the queue.
//!
//! A queue is chosen by settings at start, so every trait here is object-safe. What an adapter
//! promises is written above each method and tested by the module `conformance`, which has a
//! part for each role.
//!
//! ```
//! use std::sync::Mutex;
//!
//! use event_model::Event;
//! use fluent_queue::{
//!     Impediment, Intake, Position, Quarantined, QueueError, Receipt, RejectedWebhook,
//! };
//! use futures::future::{BoxFuture, FutureExt, ready};
//!
//! /// An intake that forgets with its process: for a test of what stands before it.
//! #[derive(Debug, Default)]
//! struct InMemory(Mutex<Vec<Event>>);
//!
//! impl Intake for InMemory {
//!     fn publish(&self, event: Event) -> BoxFuture<'_, Result<Receipt, QueueError>> {
//!         let mut events = self.0.lock().unwrap();
//!         let duplicate = events.iter().any(|known| known.id() == event.id());
//!         if !duplicate {
//!             events.push(event);
//!         }
//!         let receipt = Position::new(0, events.len() as u64)
//!             .map(|position| Receipt { duplicate, epoch: "1".to_owned(), position })
//!             .map_err(|error| QueueError::unavailable("numbering an event", error));
//!         ready(receipt).boxed()
//!     }
//!
//!     fn quarantine(&self, _: Quarantined) -> BoxFuture<'_, Result<(), QueueError>> {
//!         ready(Ok(())).boxed()
//!     }
//!
//!     fn capture_rejected(&self, _: RejectedWebhook) -> BoxFuture<'_, Result<(), QueueError>> {
//!         ready(Ok(())).boxed()
//!     }
//!
//!     fn impediment(&self) -> Option<Impediment> {
//!         None
//!     }
//! }
//! ```
//! Start reading at [`Intake`].

mod accepted;
mod attempts;
mod delivery;
mod error;
pub mod facts;
mod health;
mod history_gaps;
mod index;
mod intake;
pub mod known_senders;
mod letters;
mod lifecycle;
mod line_sampler;
mod position;
pub mod processes;
mod rejected;
mod route;
mod route_status;
pub mod same_id;
pub mod seen_events;
mod source;
mod stores;
mod upstream;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use condition::{Condition, ConditionError, ConditionSyntaxError};

pub use crate::accepted::{AcceptedPage, AcceptedQuery};
pub use crate::attempts::{
    AttemptPage, AttemptQuery, EndedAttempt, EventSummary, MAX_REF, cut, entity,
};
pub use crate::delivery::{
    Attempt, DeadReason, Delivery, Disposition, Lease, MAX_DETAIL, Outcome, SettleError,
    Settlement, Ticket, redrive_number,
};
pub use crate::error::{BoxError, QueueError};
pub use crate::facts::{Fact, FactAccess, FactStore, MARKED_FOR, ReconciledPair, SpoolWatermark};
pub use crate::health::{ServerHealth, ServerState, StoreUsage, StoresHealth};
pub use crate::history_gaps::{
    HistoryGap, LostAttempts, MAX_HISTORY_GAPS, forget_history_gaps, history_gaps, note_history_gap,
};
pub use crate::index::{HistoryIndex, IndexProgress, IndexedAttempt, IndexedEvent, Log};
pub use crate::intake::{Impediment, Intake, OnForwarded, QuarantineOverflow, Receipt};
pub use crate::letters::{DeadLetter, DeadLetters, DeadPage, DeadQuery, PAGE_BYTES};
pub use crate::lifecycle::{Lifecycle, QueueHealth, SpoolHealth};
pub use crate::line_sampler::LineSampler;
pub use crate::position::{Position, PositionError};
pub use crate::rejected::{
    REFUSED_BYTES, REFUSED_FOR, RejectedCount, RejectedStore, RejectedWebhook,
};
pub use crate::route::{MatchFields, Mismatch, Route, RouteFilter, StartPosition, UNROUTED};
pub use crate::route_status::{BreakerState, CONFLICT_AFTER, RouteProcessStatus, StatusSource};
pub use crate::source::{Consumer, Source};
pub use crate::stores::{
    EventStory, History, PAUSES_WITHIN, Pause, Quarantine, Quarantined, ReceivedKeys, ReceivedPage,
    ReceivedQuery, ReplayOutcome, RouteState, SAME_IDS_SHOWN, SameIdEvent, Stores, StoryGap,
    StoryPage, StoryState, StoryStep,
};
pub use crate::upstream::{Horizon, Presence, PublishResults, REMOVED_AFTER, Upstream};
