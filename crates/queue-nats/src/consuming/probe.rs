//! Whether deliveries can be fetched and settled now, tried out.

use futures::future::try_join_all;
use queue::{BoxError, QueueError};
use tokio::time::timeout;

use crate::api;
use crate::connect::REQUEST;
use crate::names::{ATTEMPTS, EVENTS, RETRIES};
use crate::shared::Shared;

/// Routes that are asked for at once: a process may run a hundred.
const AT_ONCE: usize = 16;

/// A request for messages that no server accepts, since a batch is a number: its refusal
/// comes from the one that would hand them out, and takes none.
const NO_REQUEST: &str = r#"{"batch":"none"}"#;

/// How it is refused: "Bad Request" in ADR-37.
const REFUSED: u16 = 400;

/// An acknowledgement of a message that no stream will ever have: number 2^62. "Still
/// working on it" is answered by the one that would take note, and changes nothing. Number
/// 0 is not answered.
const NO_MESSAGE: &str = "1.4611686018427387904.0.0.0";

/// An error unless every consumer of the routes that are joined here hears requests
/// and acknowledgements, and what settling writes to is there.
pub(crate) async fn probe(shared: &Shared) -> Result<(), QueueError> {
    if !shared.link.is_connected() {
        return Err(QueueError::unavailable("asking NATS", "not connected"));
    }
    for stream in [RETRIES, ATTEMPTS] {
        api::stream_info(&shared.link, stream)
            .await
            .map_err(|error| error.of("asking NATS about a stream"))?;
    }
    for routes in shared.routes().chunks(AT_ONCE) {
        try_join_all(routes.iter().map(|route| can_work(shared, route))).await?;
    }
    Ok(())
}

async fn can_work(shared: &Shared, route: &str) -> Result<(), QueueError> {
    tokio::try_join!(
        hears_requests(shared, EVENTS, route),
        hears_requests(shared, RETRIES, route),
        hears_settlements(shared, EVENTS, route),
        hears_settlements(shared, RETRIES, route),
    )?;
    Ok(())
}

async fn hears_requests(shared: &Shared, stream: &str, route: &str) -> Result<(), QueueError> {
    let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{route}");
    let asked = timeout(REQUEST, shared.link.client.request(subject, NO_REQUEST.into())).await;
    let failed = |error: BoxError| QueueError::unavailable("asking for deliveries", error);
    let answer =
        asked.map_err(|_| failed("no answer in time".into()))?.map_err(|error| failed(error.into()))?;
    match answer.status {
        Some(status) if status == REFUSED => Ok(()),
        other => Err(failed(format!("an answer with status {other:?}, expected {REFUSED}").into())),
    }
}

async fn hears_settlements(shared: &Shared, stream: &str, route: &str) -> Result<(), QueueError> {
    let subject = format!("$JS.ACK.{stream}.{route}.{NO_MESSAGE}");
    let answer = shared.link.request(subject, "+WPI".into()).await;
    answer.map(drop).map_err(|error| QueueError::unavailable("settling a delivery", error))
}
