//! Reads a request's body, within its time and the budget of bytes.

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body_util::BodyExt;
use process::{ConnectionPermit, ConnectionStage};
use tokio::time::timeout;

use crate::Bounds;
use crate::byte_budget::HeldBytes;
use crate::response::ReceiveError;

/// Bytes reserved at first for a body that comes in pieces.
const FIRST_ROOM: usize = 1024;

/// Reads the body. Its bytes count against the budget as they arrive, by the memory that they
/// take. The announced length does not count, so an announcement costs nothing.
pub(crate) async fn read_body(
    body: Body,
    held: &HeldBytes,
    place: Option<&ConnectionPermit>,
    bounds: &Bounds,
) -> Result<Bytes, ReceiveError> {
    let reading = timeout(bounds.body_within, collect(body, held, bounds.body));
    let gives_way = async {
        match place {
            Some(place) => tokio::select! {
                () = place.evicted().cancelled() => {}
                () = held.evicted().cancelled() => {}
            },
            None => held.evicted().cancelled().await,
        }
    };
    let read = tokio::select! {
        // A body that is all here needs no room from others.
        biased;
        read = reading => read.unwrap_or(Err(ReceiveError::TooSlow)),
        () = gives_way => Err(ReceiveError::OverShare),
    }?;
    held.complete();
    if let Some(place) = place {
        place.enter(ConnectionStage::Working);
    }
    Ok(read)
}

async fn collect(mut body: Body, held: &HeldBytes, most: usize) -> Result<Bytes, ReceiveError> {
    let announced = body
        .size_hint()
        .exact()
        .and_then(|length| usize::try_from(length).ok());
    let announced = announced.unwrap_or(most).min(most);
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| ReceiveError::Broken)?.into_data() else {
            continue;
        };
        let length = whole.len() + data.len();
        if length > most {
            return Err(ReceiveError::TooLarge);
        }
        if whole.is_empty() && body.is_end_stream() {
            // The usual case: all in one piece, which needs no copy.
            held.grow_to(length)?;
            return Ok(data);
        }
        if length > whole.capacity() {
            let room = (2 * whole.capacity())
                .max(FIRST_ROOM)
                .min(announced)
                .max(length);
            held.grow_to(room)?;
            whole.reserve_exact(room - whole.len());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}
