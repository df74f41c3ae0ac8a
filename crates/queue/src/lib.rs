//! Where events wait: the ports that a queue implements.
//!
//! ```text
//! publish(Event) ─▶ EventQueue ─subscribe(Route)─▶ Consumer ─next─▶ Delivery ─settle─▶ done
//!                       │                                                    ├─▶ again, later
//!                       └─ Stores: dead letters, quarantine, history         └─▶ dead letter
//! ```
//!
//! A port is chosen by settings at start, so every trait here is object-safe.
//! What an adapter promises is written above each method and tested by
//! the module `conformance`, which every adapter runs.
//!
//! Start reading at [`EventQueue`].

mod attempts;
mod delivery;
mod error;
mod health;
mod index;
mod letters;
pub mod marks;
mod position;
pub mod processes;
mod refused;
mod route;
pub mod seen;
mod standing;
mod stores;
mod working;

#[cfg(feature = "conformance")]
pub mod conformance;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use event_model::{Event, EventId};
use futures::future::BoxFuture;

pub use condition::{Condition, Misread, Undecided};

pub use crate::attempts::{About, AttemptPage, AttemptQuery, EndedAttempt};
pub use crate::delivery::{
    Attempt, DeadReason, Delivery, Lease, MAX_DETAIL, Outcome, Settlement, Ticket, Unsettled, Verdict,
    redrive_number,
};
pub use crate::error::{BoxError, QueueError};
pub use crate::health::{ServerHealth, ServerState, StoreUsage, StoresHealth};
pub use crate::index::{HistoryIndex, IndexedAttempt, IndexedEvent, Known, Log};
pub use crate::letters::{DeadLetter, DeadLetters, DeadQuery, PAGE_BYTES};
pub use crate::marks::{MARKED_FOR, MarkEntry, Marks, SpoolMark, Twin};
pub use crate::position::{Position, PositionError};
pub use crate::refused::{REFUSED_BYTES, REFUSED_FOR, RefusedCount, RefusedHold, RefusedWebhook};
pub use crate::route::{Filter, Miss, Route, Start, Terms, UNROUTED};
pub use crate::standing::{SpoolStanding, Standing};
pub use crate::stores::{
    EventStory, History, PAUSES_WITHIN, Pause, Quarantine, Quarantined, ReceivedKeys, ReceivedPage,
    ReceivedQuery, Replayed, RouteState, Stores, StoryState, StoryStep,
};
pub use crate::working::{BreakerState, Look, Working};

/// Somewhere events wait, durably, until every route has settled them.
pub trait EventQueue: fmt::Debug + Send + Sync {
    /// Stores `event`. When this returns `Ok`, a crash or power cut does not
    /// lose it. An id that is known within the adapter's window is stored once
    /// and answered with [`Receipt::duplicate`].
    fn publish(&self, event: Event) -> BoxFuture<'_, Result<Receipt, QueueError>>;

    /// Stores events so that none overtakes another of its entity: what comes
    /// after one that failed is not stored, or is a duplicate when it comes again.
    fn publish_all<'a>(&'a self, events: &'a [Event]) -> BoxFuture<'a, Published> {
        Box::pin(async move {
            let mut published = Published::default();
            for event in events {
                match self.publish(event.clone()).await {
                    Ok(receipt) => published.receipts.push(receipt),
                    Err(error) => return Published { error: Some(error), ..published },
                }
            }
            published
        })
    }

    /// Whether `position` holds the event `id`: what a copy elsewhere may be
    /// given up for.
    fn holds(&self, position: Position, id: EventId) -> BoxFuture<'_, Result<Holding, QueueError>>;

    /// Stores an event once more that is known but not held.
    fn publish_again(&self, event: Event) -> BoxFuture<'_, Result<Receipt, QueueError>>;

    /// Says that these routes are about to be joined, together: where their matches differ
    /// from those before, an event may move from one to another, and whoever serves them with
    /// the matches before leaves it to neither. Joining without is right for one route alone.
    fn announce<'a>(&'a self, routes: &'a [Route]) -> BoxFuture<'a, Result<(), QueueError>> {
        // Where nobody else serves them, nobody is to be told.
        let _ = routes;
        Box::pin(futures::future::ready(Ok(())))
    }

    /// Joins `route`, creating it at its start when it is first seen.
    /// Consumers of one name share its deliveries.
    fn subscribe(&self, route: Route) -> BoxFuture<'_, Result<Box<dyn Consumer>, QueueError>>;

    /// The newest position, and the epoch in which positions count.
    fn horizon(&self) -> BoxFuture<'_, Result<Horizon, QueueError>>;

    /// Whether a publish is likely to succeed now: what makes a gateway ready.
    fn has_room(&self) -> bool;

    /// Whether deliveries of the routes that are joined here can be fetched and settled
    /// now, tried out without taking or changing anything: what makes a dispatcher
    /// ready. Asked every few seconds.
    fn probe(&self) -> BoxFuture<'_, Result<(), QueueError>> {
        // Where one file is all there is, settling is a write like any other.
        let probed = if self.has_room() { Ok(()) } else { Err(QueueError::Full) };
        Box::pin(std::future::ready(probed))
    }

    /// From now on, `told` hears of every event that reached the queue after it was
    /// answered for. Must not block. Only a queue with a spool has such events.
    fn tell_of_forwarded(&self, told: OnForwarded) {
        drop(told);
    }

    /// How it does, for who watches it: asked every few seconds.
    fn standing(&self) -> BoxFuture<'_, Standing> {
        let standing = Standing { is_reachable: self.has_room(), ..Standing::default() };
        Box::pin(std::future::ready(standing))
    }

    /// Shows others how this process's routes stand: [`RouteState::working`].
    fn show(&self, look: Look);

    /// What is kept beside the events themselves.
    fn stores(&self) -> &dyn Stores;

    /// Resolves when this handle can never again do its work, with the reason;
    /// whoever runs the process should end it and start anew.
    fn failed(&self) -> BoxFuture<'_, String>;

    /// Finishes what was asked, gives back what is held, and stops.
    fn close(&self) -> BoxFuture<'_, ()>;
}

const _: fn(&dyn EventQueue) = |_| {};

/// Hears of an event that came by way of a spool.
pub type OnForwarded = Arc<dyn Fn(&Event) + Send + Sync>;

/// One reader of a route.
pub trait Consumer: fmt::Debug + Send {
    /// Waits for at least one delivery and takes at most `permits`.
    ///
    /// Each delivery's attempt is recorded before it is handed out, so an
    /// attempt that kills the process is known after the restart.
    /// Cancel-safe: what a dropped call had taken comes back. What is due again and what
    /// is new take turns: neither waits for the other to end.
    fn next(&mut self, permits: usize) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>>;

    /// The same for one delivery, by which is asked whether a destination is back: a first
    /// attempt where one waits, since what failed before may be why it failed.
    fn next_to_probe(&mut self) -> BoxFuture<'_, Result<Vec<Delivery>, QueueError>>;
}

const _: fn(&dyn Consumer) = |_| {};

/// Proof that an event is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// It was there before.
    pub duplicate: bool,
    /// The life of the store in which `position` counts.
    pub epoch: String,
    /// Where it is stored; rises with every new event of its shard.
    pub position: Position,
}

/// Whether a queue has an event where it says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It is there.
    Held,
    /// The queue begins after that position: it was settled by every route and
    /// removed, or the queue has lost its beginning. The former takes at least
    /// [`REMOVED_AFTER`].
    Removed,
    /// It is not there, or something else is.
    Missing,
}

/// A queue that is made for a spool before it keeps what it stored for so long,
/// whoever has settled it and however crowded it is.
pub const REMOVED_AFTER: Duration = Duration::from_hours(1);

/// What became of events that were published together.
#[derive(Debug, Default)]
pub struct Published {
    /// Of the first so many.
    pub receipts: Vec<Receipt>,
    /// Why the others were not stored.
    pub error: Option<QueueError>,
}

/// How far a queue reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// Changes when the store is made anew, and positions start over.
    pub epoch: String,
    /// The newest position; [`Position::START`] where there is none.
    pub last: Position,
}
