use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use condition::Undecided;
use event_model::{Event, Timestamp};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{Position, QueueError};

/// Longest explanation kept with an attempt or a dead letter, in bytes.
pub const MAX_DETAIL: usize = 512;

/// One event on its way to one route's destination.
#[derive(Debug)]
pub struct Delivery {
    /// What is to be delivered.
    pub event: Arc<Event>,
    /// Where the queue keeps it.
    pub position: Position,
    /// 0, or the [number](redrive_number) of the redrive or replay that caused it.
    pub redrive: u32,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Attempts so far in which the destination was asked. Those that a stop or a crash cut
    /// off are not among them: nobody knows whether they asked.
    pub asked: u32,
    /// When the first attempt began.
    pub first_attempt_at: Timestamp,
    /// How often the process died while this delivery was being attempted.
    pub deaths: u32,
    /// It was a dead letter because the route's expression gave no answer, and was redriven:
    /// the route's match is asked again, and may say no.
    pub asks_match: bool,
    /// What the route's match said when it was taken out of the queue; nothing where it was
    /// not asked, as for what is delivered again.
    pub matched: Option<Result<(), Undecided>>,
    /// The right to settle it.
    pub ticket: Ticket,
}

/// The number of a redrive or replay, out of a place among the dead letters that is given once:
/// that of the letter, or one that the act takes for itself. So no two acts upon an event and a
/// route have the same number, whatever the history has forgotten. Beyond 32 bits they begin again at 1: two acts upon one event are never so
/// far apart.
///
/// ```
/// assert_eq!(queue::redrive_number(7), 7);
/// assert_eq!(queue::redrive_number(u64::from(u32::MAX) + 1), 1);
/// ```
pub fn redrive_number(place: u64) -> u32 {
    let beyond = place.saturating_sub(1) % u64::from(u32::MAX);
    u32::try_from(beyond + 1).unwrap_or(u32::MAX)
}

impl Delivery {
    /// `<eventId>`, or `<eventId>/<route>/<n>` where a person sent it again.
    pub fn id(&self, route: &str) -> String {
        match self.redrive {
            0 => self.event.id().to_string(),
            n => format!("{}/{route}/{n}", self.event.id()),
        }
    }
}

/// What became of an attempt: the record of it *is* how it is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// What happens to the delivery.
    pub verdict: Verdict,
    /// Whether this attempt asked the destination: the queue counts those in
    /// [`Delivery::asked`].
    pub asked: bool,
    /// What is remembered of the attempt.
    pub attempt: Attempt,
}

/// What happens to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Handled; the route is finished with it.
    Done,
    /// Deliver it again, no sooner than this.
    Again(Duration),
    /// Keep it as a dead letter.
    Dead(DeadReason),
}

/// Why a delivery became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DeadReason {
    /// The destination will never take it.
    Permanent,
    /// The retry policy's attempts or time are used up.
    Exhausted,
    /// It killed the process, alone.
    Crash,
    /// No route matches it.
    Unrouted,
    /// The route's `when` gave no answer for it.
    Undecided,
}

/// One attempt, for the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// The destination's own status, where it has one.
    pub status: Option<u16>,
    /// Why, in words without data of the event; at most [`MAX_DETAIL`] bytes.
    pub detail: Option<String>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Outcome {
    /// The destination has it.
    Done,
    /// Not now.
    Transient,
    /// Not ever.
    Permanent,
    /// No answer before the deadline.
    TimedOut,
    /// The dispatcher panicked.
    Panicked,
    /// No route matched: there was nothing to attempt.
    Unrouted,
    /// The process died, and with it the knowledge of how the attempt ended.
    Died,
    /// Given back unsettled: the service stopped, or the lease ran out. Or it waits for another
    /// event of its id.
    Returned,
}

macro_rules! names {
    ($type:ident: $($variant:ident = $name:literal,)*) => {
        impl $type {
            /// The name in stores, logs and metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The inverse of `as_str`.
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

    /// Says that the attempt is alive: the lease begins anew.
    fn progress(&mut self) -> BoxFuture<'_, Result<(), QueueError>>;

    /// Records, durably, that this attempt runs with nothing else in flight, or
    /// does not any more. Should the process die while it does, this delivery did it.
    fn alone(&mut self, is_alone: bool) -> BoxFuture<'_, Result<(), QueueError>>;
}

/// The queue was not told. The ticket is inside; try again or drop it.
#[derive(Debug, thiserror::Error)]
#[error("delivery not settled")]
pub struct Unsettled {
    /// Still good.
    pub ticket: Ticket,
    /// Why.
    #[source]
    pub source: QueueError,
}

impl Ticket {
    /// Called by adapters.
    pub fn new(lease: impl Lease + 'static) -> Self {
        Self(Box::new(lease))
    }

    /// Settles the delivery.
    pub async fn settle(mut self, settlement: Settlement) -> Result<(), Unsettled> {
        match self.0.settle(settlement).await {
            Ok(()) => Ok(()),
            Err(source) => Err(Unsettled { ticket: self, source }),
        }
    }

    /// Says that the attempt is alive.
    pub async fn progress(&mut self) -> Result<(), QueueError> {
        self.0.progress().await
    }

    /// Records that this attempt runs alone.
    pub async fn alone(&mut self) -> Result<(), QueueError> {
        self.0.alone(true).await
    }

    /// Records that others run beside this attempt again.
    pub async fn accompanied(&mut self) -> Result<(), QueueError> {
        self.0.alone(false).await
    }
}
