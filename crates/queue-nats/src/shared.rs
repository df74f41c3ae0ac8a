//! [`Shared`]: the state that every consumer, delivery and store of one queue shares.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::consumer::Info;
use async_nats::{Subject, Subscriber};
use event_model::{Clock, Event, Timestamp, encode_header_value};
use queue::{DeadReason, HistoryIndex, QueueError, Route};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempts::Attempts;
use crate::connect::NatsConnection;
use crate::consuming::{
    ByteBudget, Conflicts, DeliveryState, InFlightWriter, ProbeSchedule, present,
};
use crate::failure::failed;
use crate::names::{HEADER_BURIED, HEADER_DETAIL, HEADER_REASON, dead, due, waiting};
use crate::publishing::Publisher;
use crate::room::StreamRoom;
use crate::stream_monitor::StreamMonitor;
use crate::streams::{RETRIES, StreamName};
use crate::verification::Verification;

/// Stream and sequence of the message that a delivery comes from: two streams have the same
/// sequences.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) stream: StreamName,
    pub(crate) sequence: u64,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stream, self.sequence)
    }
}

/// State that every consumer, delivery and store of one queue shares.
pub(crate) struct Shared {
    pub(crate) link: NatsConnection,
    /// Addresses from the settings.
    pub(crate) servers: Vec<String>,
    pub(crate) publisher: Publisher,
    pub(crate) attempts: Attempts,
    pub(crate) monitor: Arc<StreamMonitor>,
    /// Room for deliveries that wait.
    pub(crate) retries_room: StreamRoom,
    /// Room for dead letters.
    pub(crate) letters_room: StreamRoom,
    pub(crate) inflight: InFlightWriter,
    /// Memory for deliveries in hand.
    pub(crate) in_hand: Arc<ByteBudget>,
    pub(crate) probing: ProbeSchedule,
    pub(crate) clock: Arc<dyn Clock>,
    /// Tasks whose end closing waits for.
    pub(crate) tasks: TaskTracker,
    pub(crate) closing: CancellationToken,
    /// Tells this process's markers from another's.
    pub(crate) instance: u64,
    /// Index in which events and attempts are looked up.
    pub(crate) index: Option<Arc<dyn HistoryIndex>>,
    /// Check that a message taken from a stream is one that was admitted.
    pub(crate) verification: Verification,
    /// Routes that this process has joined.
    pub(crate) joined: Mutex<BTreeSet<String>>,
    /// Routes that this process is about to join: dispatchers that serve them with another match
    /// have heard of it.
    pub(crate) announced: Mutex<BTreeMap<String, Announced>>,
    /// Epochs of routes: times at which their consumers of the events were made.
    pub(crate) route_epochs: Mutex<BTreeMap<String, String>>,
    /// Routes that another dispatcher serves with another match.
    pub(crate) conflicts: Conflicts,
}

/// A match that was announced, and is not joined yet. While this exists, the dispatchers before
/// see that somebody with that match is there.
#[derive(Debug)]
pub(crate) struct Announced {
    digest: String,
    _presence: Subscriber,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("monitor", &self.monitor)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Remembers that this process joined `route`; returns whether it is the first of its routes.
    pub(crate) fn join(&self, route: &str) -> bool {
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = joined.is_empty();
        joined.insert(route.to_owned());
        is_first
    }

    /// Shows other processes that this one is about to join `route` with its match, and remembers
    /// that it was announced.
    pub(crate) async fn note_announced(&self, route: &Route) -> Result<(), QueueError> {
        let digest = route.filter.digest();
        let here = present(&self.link, &route.name, &digest);
        let presence = self.link.client.subscribe(here).await;
        let announced = Announced {
            digest,
            _presence: presence.map_err(failed("showing that a route is joined"))?,
        };
        self.announced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(route.name.clone(), announced);
        Ok(())
    }

    /// Returns the announcement of this match, if there was one. Once for each: a later join has
    /// to announce it again.
    pub(crate) fn take_announced(&self, route: &Route) -> Option<Announced> {
        let mut announced = self
            .announced
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        announced
            .remove(&route.name)
            .filter(|announced| announced.digest == route.filter.digest())
    }

    /// Whether this process has joined `route`.
    pub(crate) fn has_joined(&self, route: &str) -> bool {
        self.joined
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(route)
    }

    /// Returns the routes that this process has joined.
    pub(crate) fn routes(&self) -> Vec<String> {
        self.joined
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Notes the epoch of the route of this consumer of the events. A route that was forgotten and
    /// added again is another one, although its name and its messages are the same.
    pub(crate) fn note_route_epoch(&self, info: &Info) {
        let epoch = format!("{:x}", info.created.unix_timestamp_nanos());
        self.route_epochs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(info.name.clone(), epoch);
    }

    /// Returns the id of a message that is written for a delivery of `route`. Servers drop a
    /// message whose id they have seen a while ago, whatever became of that message; so the epoch
    /// of the route is part of it, and `why` tells this message from others of the delivery.
    fn delivery_message_id(&self, delivery: &str, route: &str, why: &str) -> String {
        let epochs = self
            .route_epochs
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let epoch = epochs.get(route).map_or("", String::as_str);
        format!("{delivery}/{route}/{epoch}/{why}")
    }

    /// Acknowledges a message, and waits until the server confirms that.
    pub(crate) async fn acknowledge(&self, reply: &Subject) -> Result<(), QueueError> {
        let answer = self.link.request(reply.to_string(), "+ACK".into()).await;
        answer
            .map(drop)
            .map_err(|error| QueueError::unavailable("acknowledging a delivery", error))
    }

    /// Acknowledges a message without waiting: if that is lost, the message comes again.
    pub(crate) async fn dismiss(&self, reply: &Subject) {
        let _ = self.link.say(reply.clone(), "+ACK").await;
    }

    /// Schedules a delivery to come again at `at`. Written twice from the same message of the same
    /// route, it is stored once.
    pub(crate) async fn schedule(
        &self,
        event: &Event,
        past: &DeliveryState,
        route: &str,
        at: Timestamp,
        from: Origin,
    ) -> Result<(), QueueError> {
        self.ensure_room(event, route, Some(from)).await?;
        let delivery = past.delivery(event);
        let mut headers = past.headers(event, route);
        let at = self.monitor.retries_time(at);
        headers.insert("Nats-Schedule", format!("@at {at}"));
        headers.insert("Nats-Schedule-Target", due(route, &delivery));
        let why = format!("{}/{from}", past.attempts);
        headers.insert(
            NATS_MESSAGE_ID,
            self.delivery_message_id(&delivery, route, &why),
        );
        self.publisher
            .put(waiting(route, &delivery), headers, event.body().clone())
            .await
            .map(drop)
    }

    /// Fails if there is no room among the retries for a delivery that comes from this message. One
    /// that comes from the retries replaces itself there: if it had to wait for room, nothing would
    /// ever make any.
    async fn ensure_room(
        &self,
        event: &Event,
        route: &str,
        from: Option<Origin>,
    ) -> Result<(), QueueError> {
        let bytes = event.body().len();
        let replaces_itself = from.is_some_and(|from| from.stream == RETRIES);
        match replaces_itself || self.retries_room.has_room(route, bytes).await {
            true => Ok(()),
            false => Err(QueueError::Full),
        }
    }

    /// Writes a delivery to the retries, due at once, that comes from the message `from` or from a
    /// person. `why` is part of its id: it must tell this time from any other, or the server would
    /// drop the message as a duplicate.
    pub(crate) async fn requeue(
        &self,
        event: &Event,
        past: &DeliveryState,
        route: &str,
        from: Option<Origin>,
        why: &str,
    ) -> Result<(), QueueError> {
        self.ensure_room(event, route, from).await?;
        let delivery = past.delivery(event);
        let mut headers = past.headers(event, route);
        let why = format!("{}/{why}", past.attempts);
        headers.insert(
            NATS_MESSAGE_ID,
            self.delivery_message_id(&delivery, route, &why),
        );
        self.publisher
            .put(due(route, &delivery), headers, event.body().clone())
            .await
            .map(drop)
    }

    /// Writes a dead letter, and returns its number.
    pub(crate) async fn dead_letter(
        &self,
        event: &Event,
        past: &DeliveryState,
        route: &str,
        reason: DeadReason,
        detail: Option<&str>,
    ) -> Result<u64, QueueError> {
        if !self.letters_room.has_room(route, event.body().len()).await {
            return Err(QueueError::Full);
        }
        let mut headers = past.headers(event, route);
        headers.insert(HEADER_REASON, reason.as_str());
        headers.insert(HEADER_BURIED, self.monitor.servers_now().to_string());
        if let Some(detail) = detail {
            headers.insert(HEADER_DETAIL, encode_header_value(detail).as_ref());
        }
        headers.insert(
            NATS_MESSAGE_ID,
            self.delivery_message_id(&past.delivery(event), route, "dead"),
        );
        let placed = self
            .publisher
            .put(dead(route), headers, event.body().clone())
            .await?;
        Ok(placed.sequence)
    }

    /// Returns the time after this wait, by the servers' clock.
    pub(crate) fn after(&self, wait: Duration) -> Timestamp {
        self.monitor
            .servers_now()
            .saturating_add(wait)
            .unwrap_or(Timestamp::MAX)
    }
}
