//! Rejected webhooks. The stream itself removes the oldest.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use base64::{Engine, engine::general_purpose::STANDARD};
use event_model::{Bytes, Event, Headers, Timestamp, encode_header_value};
use futures::future::BoxFuture;
use percent_encoding::percent_decode_str;
use queue::{PAGE_BYTES, QueueError, RejectedCount, RejectedStore, RejectedWebhook};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::api;
use crate::message::{parsed, text};
use crate::names::{
    HEADER_ACCOUNT, HEADER_HEADERS, HEADER_REASON, HEADER_TIME, REFUSED_SUBJECT, REFUSED_WEBHOOKS,
};
use crate::stores::JetStreamStores;
use crate::stores::scan::{Scan, Stored};
use crate::streams::REFUSED;

impl RejectedStore for JetStreamStores {
    fn capture(&self, webhook: RejectedWebhook) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            let headers = headers(&webhook);
            let body = webhook.inbound.body;
            self.0
                .publisher
                .put(REFUSED_WEBHOOKS.to_owned(), headers, body)
                .await
                .map(drop)
        })
    }

    fn list(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<RejectedWebhook>, QueueError>> {
        Box::pin(async move {
            let subject = REFUSED_SUBJECT.to_owned();
            let scan = Scan {
                stream: REFUSED,
                subject,
                from: after.saturating_add(1),
                since: None,
                headers_only: false,
            };
            let mut found = Vec::new();
            let mut bytes = 0;
            let look = |stored: Stored| {
                if let Some(webhook) = refused(stored.sequence, &stored.headers, stored.body) {
                    bytes += webhook.bytes();
                    found.push(webhook);
                }
                found.len() < limit && bytes < PAGE_BYTES as u64
            };
            if limit > 0 {
                scan.each(&self.0.link, look).await?;
            }
            Ok(found)
        })
    }

    fn get(&self, id: u64) -> BoxFuture<'_, Result<RejectedWebhook, QueueError>> {
        Box::pin(async move {
            let found = api::get_message(&self.0.link, REFUSED, &json!({ "seq": id })).await;
            let found = found.map_err(|error| error.of("reading a refused webhook"))?;
            found
                .and_then(|message| refused(id, &message.headers, message.payload))
                .ok_or_else(|| QueueError::NotFound(format!("refused webhook {id}")))
        })
    }

    fn count(&self) -> BoxFuture<'_, Result<RejectedCount, QueueError>> {
        Box::pin(async move {
            let info = api::stream_info(&self.0.link, REFUSED).await;
            let state = info
                .map_err(|error| error.of("counting refused webhooks"))?
                .state;
            Ok(RejectedCount {
                webhooks: state.messages,
                bytes: state.bytes,
            })
        })
    }

    /// Publishes first and then removes: the server may have lost the event whose id it knows,
    /// and this may be the last copy.
    fn admit(&self, id: u64, event: Event) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(async move {
            self.get(id).await?;
            self.0.publish_unless_present(&event).await?;
            let removed = api::delete_message(&self.0.link, REFUSED, id).await;
            removed.map_err(|error| error.of("removing a refused webhook"))
        })
    }
}

fn headers(webhook: &RejectedWebhook) -> HeaderMap {
    let lines: Vec<_> = webhook
        .inbound
        .headers
        .iter()
        .map(|(name, value)| (name, STANDARD.encode(value)))
        .collect();
    let lines = serde_json::to_string(&lines).unwrap_or_default();
    let digest = Sha256::new()
        .chain_update(&lines)
        .chain_update([0])
        .chain_update(&webhook.inbound.body);
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, hex::encode(digest.finalize()));
    headers.insert(HEADER_HEADERS, STANDARD.encode(lines));
    headers.insert(HEADER_TIME, webhook.inbound.received_at.to_string());
    headers.insert(HEADER_REASON, encode_header_value(&webhook.reason).as_ref());
    headers.insert(
        HEADER_ACCOUNT,
        encode_header_value(&webhook.account).as_ref(),
    );
    headers
}

fn refused(id: u64, headers: &HeaderMap, body: Bytes) -> Option<RejectedWebhook> {
    let decoded = |name| {
        Some(
            percent_decode_str(text(headers, name)?)
                .decode_utf8_lossy()
                .into_owned(),
        )
    };
    let lines = STANDARD.decode(text(headers, HEADER_HEADERS)?).ok()?;
    let lines: Vec<(String, String)> = serde_json::from_slice(&lines).ok()?;
    let lines: Headers = lines
        .into_iter()
        .map(|(name, value)| (name, STANDARD.decode(value).unwrap_or_default()))
        .collect();
    let received_at = parsed::<Timestamp>(headers, HEADER_TIME).ok()?;
    Some(RejectedWebhook::stored(
        id,
        body,
        lines,
        received_at,
        decoded(HEADER_REASON)?,
        decoded(HEADER_ACCOUNT)?,
    ))
}
