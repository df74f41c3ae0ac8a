//! A delivery, its attempts and their outcomes, and the ticket that settles it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use condition::ConditionError;
use event_model::{Event, Timestamp};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{Position, QueueError};

/// Longest explanation stored with an attempt or a dead letter, in bytes.
pub const MAX_DETAIL: usize = 512;

/// An event on its way to a route's destination.
#[derive(Debug)]
pub struct Delivery {
    /// The event that is to be delivered.
    pub event: Arc<Event>,
    /// The event's position in the queue.
    pub position: Position,
    /// 0, or the [number](redrive_number) of the redrive or replay that caused it.
    pub redrive: u32,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Number of attempts so far in which the destination was asked. Attempts that a stop or a
    /// crash cut off are not counted: nobody knows whether they asked.
    pub asked: u32,
    /// Start of the first attempt.
    pub first_attempt_at: Timestamp,
    /// Number of crashes: how often the process died while this delivery was being attempted.
    pub deaths: u32,
    /// True if this was a dead letter because the route's condition gave no answer, and was
    /// redriven: the route's match is then evaluated again, and may say no.
    pub asks_match: bool,
    /// Result of the route's match when the event was taken out of the queue; `None` if it was
    /// not evaluated, as for a delivery that comes again.
    pub matched: Option<Result<(), ConditionError>>,
    /// The right to settle it.
    pub ticket: Ticket,
}

/// Makes the number of a redrive or replay from a dead letter's number that is given out only
/// once: that of the letter, or one that the act reserves for itself. So no two acts on one event
/// and route have the same number, whatever the history has forgotten.
///
/// Above 32 bits the numbers begin again at 1: two acts on one event are never that far apart.
///
/// ```
/// assert_eq!(fluent_queue::redrive_number(7), 7);
/// assert_eq!(fluent_queue::redrive_number(u64::from(u32::MAX) + 1), 1);
/// ```
pub fn redrive_number(place: u64) -> u32 {
    let beyond = place.saturating_sub(1) % u64::from(u32::MAX);
    u32::try_from(beyond + 1).unwrap_or(u32::MAX)
}

impl Delivery {
    /// The id of the delivery: `<eventId>`, or `<eventId>/<route>/<n>` if a person sent it again.
    pub fn id(&self, route: &str) -> String {
        match self.redrive {
            0 => self.event.id().to_string(),
            n => format!("{}/{route}/{n}", self.event.id()),
        }
    }
}

/// Result of an attempt: recording it *is* settling the delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The fate of the delivery: done, again later, or dead.
    pub disposition: Disposition,
    /// Whether this attempt asked the destination: the queue counts such attempts in
    /// [`Delivery::asked`].
    pub asked: bool,
    /// The record of the attempt, for the history.
    pub attempt: Attempt,
}

/// The fate of a delivery after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Delivered; the route is finished with it.
    Done,
    /// To be delivered again, no sooner than after this time.
    Again(Duration),
    /// To be stored as a dead letter.
    Dead(DeadReason),
}

/// Reason for which a delivery became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DeadReason {
    /// The destination will never accept it.
    Permanent,
    /// The retry policy's attempts or time are used up.
    Exhausted,
    /// The delivery crashed the process while it ran exclusively.
    Crash,
    /// No route matches it.
    Unrouted,
    /// The route's `when` gave no answer for it.
    Undecided,
}

/// An attempt, as the history has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// Start of the attempt.
    pub started_at: Timestamp,
    /// Duration of the attempt.
    pub took: Duration,
    /// Outcome of the attempt.
    pub outcome: Outcome,
    /// The destination's own status, if it has one.
    pub status: Option<u16>,
    /// Explanation in words, without data of the event; at most [`MAX_DETAIL`] bytes.
    pub detail: Option<String>,
}

/// Outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// The destination has accepted the event.
    Done,
    /// A failure that may pass.
    Transient,
    /// A failure that will not pass.
    Permanent,
    /// No answer before the deadline.
    TimedOut,
    /// The dispatcher panicked.
    Panicked,
    /// No route matched, so nothing was attempted.
    Unrouted,
    /// The process crashed, and the result of the attempt is unknown.
    Died,
    /// The delivery was given back unsettled: the process stopped, the lease ran out, or the
    /// delivery waits for another event of the same id.
    Returned,
}

macro_rules! names {
    ($type:ident: $($variant:ident = $name:literal,)*) => {
        impl $type {
            /// The name used in stores, logs and metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Reads a name that `as_str` returned.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names! { DeadReason:
    Permanent = "permanent",
    Exhausted = "exhausted",
    Crash = "crash",
    Unrouted = "unrouted",
    Undecided = "undecided",
}

names! { Outcome:
    Done = "done",
    Transient = "transient",
    Permanent = "permanent",
    TimedOut = "timed-out",
    Panicked = "panicked",
    Unrouted = "unrouted",
    Died = "died",
    Returned = "returned",
}

/// The right to settle one delivery.
///
/// Settling consumes it, so nothing is settled twice. Dropping it unsettled
/// gives the delivery back: it comes again, under the same number of its attempt.
#[must_use = "an unsettled delivery comes back"]
#[derive(Debug)]
pub struct Ticket(Box<dyn Lease>);

/// The adapter's side of a [`Ticket`]. Dropping it gives the delivery back.
pub trait Lease: fmt::Debug + Send + Sync {
    /// Settles durably. May be called again if it failed.
    fn settle(&mut self, settlement: Settlement) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Extends the lease, since the attempt is still under way.
    fn progress(&mut self) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Records that the attempt waits for its turn: if the process crashes before it is marked
    /// again, the attempt had not begun, and is no cause.
    fn mark_waiting(&mut self) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Records durably that the attempt begins or goes on, and whether it runs exclusively, with
    /// nothing else in flight. If the process crashes meanwhile, this delivery is the cause.
    fn mark_exclusive(&mut self, is_alone: bool) -> BoxFuture<'_, Result<(), QueueError>>;
}

/// The queue did not take the settlement. The ticket is inside: settle again, or drop it.
#[derive(Debug, thiserror::Error)]
#[error("delivery not settled")]
pub struct SettleError {
    /// The ticket, still valid.
    pub ticket: Ticket,
    /// The cause.
    #[source]
    pub source: QueueError,
}

impl Ticket {
    /// Wraps an adapter's lease.
    pub fn new(lease: impl Lease + 'static) -> Self {
        Self(Box::new(lease))
    }

    /// Settles the delivery durably. On failure the error has the ticket, for another try.
    pub async fn settle(mut self, settlement: Settlement) -> Result<(), SettleError> {
        match self.0.settle(settlement).await {
            Ok(()) => Ok(()),
            Err(source) => Err(SettleError {
                ticket: self,
                source,
            }),
        }
    }

    /// Extends the lease, since the attempt is still under way.
    pub async fn progress(&mut self) -> Result<(), QueueError> {
        self.0.progress().await
    }

    /// Records that this attempt waits for its turn: it has not begun, whatever the queue took for
    /// its beginning. It begins when it is marked as exclusive or shared.
    pub async fn mark_waiting(&mut self) -> Result<(), QueueError> {
        self.0.mark_waiting().await
    }

    /// Records durably that this attempt runs exclusively.
    pub async fn mark_exclusive(&mut self) -> Result<(), QueueError> {
        self.0.mark_exclusive(true).await
    }

    /// Records durably that other attempts run beside this one again.
    pub async fn mark_shared(&mut self) -> Result<(), QueueError> {
        self.0.mark_exclusive(false).await
    }
}
