//! A probe of the servers: whether deliveries can be fetched and settled now.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use queue::{BoxError, QueueError};
use tokio::time::timeout;

use crate::connect::REQUEST;
use crate::shared::Shared;
use crate::streams::{RETRIES, Shard, StreamName};

/// Routes that are asked for at once: a process may run a hundred.
const AT_ONCE: usize = 16;

/// A request for messages that no server accepts, since a batch is a number: the server that
/// would send the messages refuses it, and none is taken.
const NO_REQUEST: &str = r#"{"batch":"none"}"#;

/// Status of that refusal: "Bad Request" in ADR-37.
const REFUSED: u16 = 400;

/// An acknowledgement of a message that no stream will ever have: number 2^62. "Still working on
/// it" is answered by the server that would take note of it, and changes nothing. Number 0 is not
/// answered.
const NO_MESSAGE: &str = "1.4611686018427387904.0.0.0";

/// Chooses the routes that are probed.
#[derive(Debug, Default)]
pub(crate) struct ProbeSchedule(Mutex<Turns>);

#[derive(Debug, Default)]
struct Turns {
    /// Whether every route was probed once.
    has_begun: bool,
    /// The route that was probed last in turn.
    last: String,
    /// Routes that could not work when they were last probed.
    failing: BTreeSet<String>,
}

impl ProbeSchedule {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all routes at first, then one in turn and those that could not work: every probe
    /// of every process costs the servers something.
    fn next(&self, all: &[String]) -> BTreeSet<String> {
        let mut turns = self.turns();
        if !turns.has_begun {
            return all.iter().cloned().collect();
        }
        let behind = all.iter().find(|route| **route > turns.last);
        let turn = behind.or_else(|| all.first()).cloned();
        turns
            .last
            .clone_from(turn.as_ref().unwrap_or(&String::new()));
        let failing = turns
            .failing
            .iter()
            .filter(|route| all.contains(route))
            .cloned();
        failing.chain(turn).collect()
    }

    fn asked(&self, route: &str, works: bool) {
        let mut turns = self.turns();
        match works {
            true => turns.failing.remove(route),
            false => turns.failing.insert(route.to_owned()),
        };
    }

    fn begin(&self) {
        self.turns().has_begun = true;
    }
}

/// Fails unless the consumers of the routes that are joined here hear requests and
/// acknowledgements. One route in turn is probed, and those that failed before.
pub(crate) async fn probe(shared: &Shared) -> Result<(), QueueError> {
    if !shared.link.is_connected() {
        return Err(QueueError::unavailable("asking NATS", "not connected"));
    }
    let routes: Vec<String> = shared.probing.next(&shared.routes()).into_iter().collect();
    let mut probed = Ok(());
    for routes in routes.chunks(AT_ONCE) {
        for (route, works) in join_all(
            routes
                .iter()
                .map(async |route| (route, ensure_working(shared, route).await)),
        )
        .await
        {
            shared.probing.asked(route, works.is_ok());
            probed = probed.and(works);
        }
    }
    shared.probing.begin();
    probed
}

async fn ensure_working(shared: &Shared, route: &str) -> Result<(), QueueError> {
    tokio::try_join!(
        hears_requests(shared, Shard::ONLY.events(), route),
        hears_requests(shared, RETRIES, route),
        hears_settlements(shared, Shard::ONLY.events(), route),
        hears_settlements(shared, RETRIES, route),
    )?;
    Ok(())
}

async fn hears_requests(
    shared: &Shared,
    stream: StreamName,
    route: &str,
) -> Result<(), QueueError> {
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{route}");
    let asked = timeout(
        REQUEST,
        shared.link.client.request(subject, NO_REQUEST.into()),
    )
    .await;
    let failed = |error: BoxError| QueueError::unavailable("asking for deliveries", error);
    let answer = asked
        .map_err(|_| failed("no answer in time".into()))?
        .map_err(|error| failed(error.into()))?;
    match answer.status {
        Some(status) if status == REFUSED => Ok(()),
        other => Err(failed(
            format!("an answer with status {other:?}, expected {REFUSED}").into(),
        )),
    }
}

async fn hears_settlements(
    shared: &Shared,
    stream: StreamName,
    route: &str,
) -> Result<(), QueueError> {
    let subject = format!("$JS.ACK.{stream}.{route}.{NO_MESSAGE}");
    let answer = shared.link.request(subject, "+WPI".into()).await;
    answer
        .map(drop)
        .map_err(|error| QueueError::unavailable("settling a delivery", error))
}
