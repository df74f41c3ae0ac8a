use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Subject;
use async_nats::header::NATS_MESSAGE_ID;
use event_model::{Clock, Event, Timestamp, encode_header_value};
use queue::{DeadReason, HistoryIndex, QueueError, Route};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempts::Attempts;
use crate::connect::Link;
use crate::consuming::{InFlight, Past, Probing};
use crate::names::{HEADER_BURIED, HEADER_DETAIL, HEADER_REASON, dead, due, waiting};
use crate::publishing::Publisher;
use crate::standing::Standing;
use crate::streams::StreamName;
use crate::verification::Verification;

/// The message that a delivery comes from: sequences alone are those of two streams.
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

/// What every consumer, delivery and store of one queue has in common.
pub(crate) struct Shared {
    pub(crate) link: Link,
    /// The addresses of the settings.
    pub(crate) servers: Vec<String>,
    pub(crate) publisher: Publisher,
    pub(crate) attempts: Attempts,
    pub(crate) standing: Arc<Standing>,
    pub(crate) inflight: InFlight,
    pub(crate) probing: Probing,
    pub(crate) clock: Arc<dyn Clock>,
    /// What closing waits for.
    pub(crate) tasks: TaskTracker,
    pub(crate) closing: CancellationToken,
    /// Tells this process's marks from another's.
    pub(crate) instance: u64,
    /// Where events and attempts are looked up.
    pub(crate) index: Option<Arc<dyn HistoryIndex>>,
    /// Whether what is taken is what was admitted.
    pub(crate) verification: Verification,
    /// The routes that this process has joined.
    pub(crate) joined: Mutex<BTreeSet<String>>,
    /// The routes that this process is about to join, and with which match: whoever serves
    /// them with another has heard of it.
    pub(crate) announced: Mutex<BTreeMap<String, String>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("standing", &self.standing).finish_non_exhaustive()
    }
}

impl Shared {
    /// Remembers that this process joined `route`; says whether it is the first.
    pub(crate) fn join(&self, route: &str) -> bool {
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = joined.is_empty();
        joined.insert(route.to_owned());
        is_first
    }

    /// Remembers that whoever serves `route` with another match has heard of this one.
    pub(crate) fn note_announced(&self, route: &Route) {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.insert(route.name.clone(), route.filter.digest());
    }

    /// Whether that is so. Once: joined again later, it is to be said again.
    pub(crate) fn has_announced(&self, route: &Route) -> bool {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.remove(&route.name).is_some_and(|digest| digest == route.filter.digest())
    }

    /// Whether this process has joined `route`.
    pub(crate) fn has_joined(&self, route: &str) -> bool {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner).contains(route)
    }

    /// The routes that this process has joined.
    pub(crate) fn routes(&self) -> Vec<String> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Tells the server that a message is settled, and waits until it knows.
    pub(crate) async fn acknowledge(&self, reply: &Subject) -> Result<(), QueueError> {
        let answer = self.link.request(reply.to_string(), "+ACK".into()).await;
        answer.map(drop).map_err(|error| QueueError::unavailable("acknowledging a delivery", error))
    }

    /// The same, without waiting: if it is lost, the message comes again.
    pub(crate) async fn dismiss(&self, reply: &Subject) {
        let _ = self.link.say(reply.clone(), "+ACK").await;
    }

    /// Puts a delivery where it waits until `at`. Written twice from the same
    /// message, it waits once.
    pub(crate) async fn schedule(
        &self,
        event: &Event,
        past: &Past,
        route: &str,
        at: Timestamp,
        from: Origin,
    ) -> Result<(), QueueError> {
        if !self.standing.has_room_to_wait() {
            return Err(QueueError::Full);
        }
        let delivery = past.delivery(event);
        let mut headers = past.headers(event, route);
        headers.insert("Nats-Schedule", format!("@at {at}"));
        headers.insert("Nats-Schedule-Target", due(route, &delivery));
        headers.insert(NATS_MESSAGE_ID, format!("{delivery}/{route}/{}/{from}", past.attempts));
        self.publisher.put(waiting(route, &delivery), headers, event.body().clone()).await.map(drop)
    }

    /// Puts a delivery where it is taken up at once. `why` is part of its id: it
    /// must tell this time from any other, or the server would drop it.
    pub(crate) async fn requeue(
        &self,
        event: &Event,
        past: &Past,
        route: &str,
        why: &str,
    ) -> Result<(), QueueError> {
        if !self.standing.has_room_to_wait() {
            return Err(QueueError::Full);
        }
        let delivery = past.delivery(event);
        let mut headers = past.headers(event, route);
        headers.insert(NATS_MESSAGE_ID, format!("{delivery}/{route}/{}/{why}", past.attempts));
        self.publisher.put(due(route, &delivery), headers, event.body().clone()).await.map(drop)
    }

    /// Writes a dead letter, and says its number.
    pub(crate) async fn bury(
        &self,
        event: &Event,
        past: &Past,
        route: &str,
        reason: DeadReason,
        detail: Option<&str>,
    ) -> Result<u64, QueueError> {
        let mut headers = past.headers(event, route);
        headers.insert(HEADER_REASON, reason.as_str());
        headers.insert(HEADER_BURIED, self.standing.servers_now().to_string());
        if let Some(detail) = detail {
            headers.insert(HEADER_DETAIL, encode_header_value(detail).as_ref());
        }
        headers.insert(NATS_MESSAGE_ID, format!("{}/{route}/dead", past.delivery(event)));
        let placed = self.publisher.put(dead(route), headers, event.body().clone()).await?;
        Ok(placed.sequence)
    }

    /// So much later than now, by the servers' clock.
    pub(crate) fn after(&self, wait: Duration) -> Timestamp {
        self.standing.servers_now().saturating_add(wait).unwrap_or(Timestamp::MAX)
    }
}
