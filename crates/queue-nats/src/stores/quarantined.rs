//! The quarantine: genuine bodies that are no events, and stored messages that are damaged or not
//! genuine.

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use event_model::{Algorithm, Event, EventId, Forgery, Proof, Timestamp, encode_header_value};
use fail::fail_point;
use futures::future::BoxFuture;
use percent_encoding::percent_decode_str;
use queue::{PAGE_BYTES, Quarantine, Quarantined, QueueError};
use serde_json::json;

use crate::api;
use crate::message::{NotAnEvent, key, parsed, proof, text};
use crate::names::{
    HEADER_ALGORITHM, HEADER_FORGED, HEADER_KEY, HEADER_KEY_DIGEST, HEADER_REASON,
    HEADER_SIGNATURE, HEADER_TIME, QUARANTINE_BODIES, QUARANTINE_SUBJECT,
};
use crate::shared::Shared;
use crate::stores::JetStreamStores;
use crate::stores::scan::{Scan, Stored};
use crate::streams::QUARANTINE;

impl Quarantine for JetStreamStores {
    fn store(&self, body: Quarantined) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            // The same bytes under the same key are stored once within the server's dedup window.
            let id = format!(
                "{}/{}",
                body.key.name(),
                EventId::of(body.key.environment(), &body.body)
            );
            keep(&self.0, headers(&body), id, body.body).await
        })
    }

    fn list(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Quarantined>, QueueError>> {
        Box::pin(async move {
            let scan = Scan {
                stream: QUARANTINE,
                subject: QUARANTINE_SUBJECT.to_owned(),
                from: after.saturating_add(1),
                since: None,
                headers_only: false,
            };
            let mut found = Vec::new();
            let mut bytes = 0;
            let look = |stored: Stored| {
                // What can't be read is not in the page, whose bytes say whether it is cut.
                if let Some(body) = quarantined(stored.sequence, &stored.headers, stored.body) {
                    bytes += body.body.len();
                    found.push(body);
                }
                found.len() < limit && bytes < PAGE_BYTES
            };
            if limit > 0 {
                scan.each(&self.0.link, look).await?;
            }
            Ok(found)
        })
    }

    fn get(&self, id: u64) -> BoxFuture<'_, Result<Quarantined, QueueError>> {
        Box::pin(async move {
            let found = api::get_message(&self.0.link, QUARANTINE, &json!({ "seq": id })).await;
            let found = found.map_err(|error| error.of("reading a quarantined body"))?;
            found
                .and_then(|message| quarantined(id, &message.headers, message.payload))
                .ok_or_else(|| QueueError::NotFound(format!("quarantined body {id}")))
        })
    }

    fn count(&self) -> BoxFuture<'_, Result<u64, QueueError>> {
        Box::pin(async move {
            let info = api::stream_info(&self.0.link, QUARANTINE).await;
            let info = info.map_err(|error| error.of("counting the quarantine"))?;
            Ok(info.state.messages)
        })
    }

    /// Publishes the event first and then removes the body, so that a crash in between loses
    /// nothing.
    fn release(&self, id: u64, event: Event) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            let was_passed_over = self.check_forged(id).await?;
            let receipt = self.0.publish_unless_present(&event).await?;
            // The id is known, and yet the body is in quarantine: the stored event could not be
            // read, routes have passed it over as not genuine, or a release was cut off before
            // the body was removed.
            if receipt.duplicate
                && (was_passed_over || !self.0.check_readable(&receipt, event.id()).await?)
            {
                self.0.publisher.republish(&event, &receipt.epoch).await?;
            }
            self.remove_quarantined(id).await
        })
    }

    fn discard(&self, id: u64) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            self.get(id).await?;
            self.remove_quarantined(id).await
        })
    }
}

impl JetStreamStores {
    /// Whether it was taken out of the streams as not genuine: what is stored there under its id
    /// is delivered to nobody.
    async fn check_forged(&self, id: u64) -> Result<bool, QueueError> {
        let found = api::get_message(&self.0.link, QUARANTINE, &json!({ "seq": id })).await;
        let found = found.map_err(|error| error.of("reading a quarantined body"))?;
        let found = found.ok_or_else(|| QueueError::NotFound(format!("quarantined body {id}")))?;
        Ok(text(&found.headers, HEADER_FORGED).is_some())
    }

    async fn remove_quarantined(&self, id: u64) -> Result<(), QueueError> {
        let removed = api::delete_message(&self.0.link, QUARANTINE, id).await;
        removed.map_err(|error| error.of("removing a quarantined body"))
    }
}

/// Stores a body. One that the server knows and has lost is stored again, under an id that names
/// the loss.
async fn keep(
    shared: &Shared,
    mut headers: HeaderMap,
    id: String,
    body: Bytes,
) -> Result<(), QueueError> {
    headers.insert(NATS_MESSAGE_ID, id.as_str());
    loop {
        let subject = QUARANTINE_BODIES.to_owned();
        let placed = shared
            .publisher
            .put_aside(subject, headers.clone(), body.clone())
            .await?;
        if !placed.is_duplicate || !check_lost(shared, placed.sequence).await {
            return Ok(());
        }
        headers.insert(NATS_MESSAGE_ID, format!("{id}/lost/{}", placed.sequence));
    }
}

/// Whether a body that the server knows is not stored any more: discarded, released, or lost. A
/// process without the right to ask believes the server.
async fn check_lost(shared: &Shared, sequence: u64) -> bool {
    let found = api::get_message(&shared.link, QUARANTINE, &json!({ "seq": sequence })).await;
    matches!(found, Ok(None))
}

fn headers(body: &Quarantined) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HEADER_ALGORITHM, body.proof.as_str());
    headers.insert(HEADER_KEY, body.key.name().to_string());
    if let Some(digest) = body.key.digest() {
        headers.insert(HEADER_KEY_DIGEST, digest.to_string());
    }
    headers.insert(HEADER_SIGNATURE, body.signature.as_str());
    headers.insert(HEADER_TIME, body.received_at.to_string());
    headers.insert(HEADER_REASON, encode_header_value(&body.reason).as_ref());
    headers
}

fn quarantined(id: u64, headers: &HeaderMap, body: Bytes) -> Option<Quarantined> {
    let read = || {
        let reason = percent_decode_str(text(headers, HEADER_REASON)?)
            .decode_utf8_lossy()
            .into_owned();
        Some(Quarantined {
            id,
            body,
            proof: proof(headers)?,
            key: key(headers).ok()?,
            signature: text(headers, HEADER_SIGNATURE)
                .unwrap_or_default()
                .to_owned(),
            received_at: parsed::<Timestamp>(headers, HEADER_TIME).ok()?,
            reason,
        })
    };
    let found = read();
    if found.is_none() {
        tracing::error!(
            id,
            "a quarantined body can't be read: its headers are damaged"
        );
    }
    found
}

/// Quarantines a stored message that nobody admitted, and then settles it.
pub(crate) async fn keep_forged(shared: &Shared, event: &Event, why: Forgery, reply: &Subject) {
    let stored = event.stored();
    let forged = Quarantined {
        id: 0,
        proof: stored.proof,
        key: (*stored.key).clone(),
        signature: stored.signature.clone(),
        received_at: stored.received_at,
        reason: format!("not genuine: {why}"),
        body: stored.body.clone(),
    };
    // Once for each route that took it.
    let mut headers = headers(&forged);
    headers.insert(HEADER_FORGED, "true");
    keep_apart(
        shared,
        format!("forged/{}", event.id()),
        headers,
        forged.body,
        reply,
    )
    .await;
}

/// Quarantines a stored message that is not the event it was, and then settles it.
pub(crate) async fn keep_damaged(
    shared: &Shared,
    found: &HeaderMap,
    body: Bytes,
    why: NotAnEvent,
    reply: &Subject,
) {
    let Ok(key) = key(found).or_else(|_| "damaged_sandbox".parse()) else {
        return;
    };
    let damaged = Quarantined {
        id: 0,
        proof: proof(found).unwrap_or(Proof::Signed(Algorithm::Sha512)),
        key,
        signature: text(found, HEADER_SIGNATURE).unwrap_or_default().to_owned(),
        received_at: parsed(found, HEADER_TIME).unwrap_or_else(|_| shared.clock.now()),
        reason: why.to_string(),
        body,
    };
    let id = format!(
        "damaged/{}",
        EventId::of(damaged.key.environment(), &damaged.body)
    );
    keep_apart(shared, id, headers(&damaged), damaged.body, reply).await;
}

/// Stores it once under `id`, and then settles it. If it can't be stored, it comes again when its
/// lease ends.
async fn keep_apart(shared: &Shared, id: String, headers: HeaderMap, body: Bytes, reply: &Subject) {
    fail_point!("damaged.before");
    if keep(shared, headers, id, body).await.is_ok() {
        fail_point!("damaged.after");
        shared.dismiss(reply).await;
        fail_point!("damaged.dismissed");
    }
}
