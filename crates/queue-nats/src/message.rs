//! An event as a message: a CloudEvent in NATS binary mode, with its signature in further
//! headers.
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/nats-protocol-binding.md>

use std::str::FromStr;
use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, NATS_MESSAGE_ID};
use bytes::Bytes;
use event_model::{
    Event, EventId, KeyId, MAX_HEADER_VALUE, Proof, StoredEvent, Timestamp, TraceState,
    encode_header_value,
};

use crate::names::{
    HEADER_ALGORITHM, HEADER_FLUENT_ID, HEADER_ID, HEADER_KEY, HEADER_KEY_DIGEST, HEADER_LOG_KEY,
    HEADER_ORIGIN, HEADER_REFED, HEADER_ROOT, HEADER_SIGNATURE, HEADER_TIME, HEADER_TRACE,
    HEADER_TRACE_STATE,
};

/// The reason for which a stored message is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored message is not the event it was: {0}")]
pub(crate) struct NotAnEvent(pub(crate) &'static str);

/// Returns the headers of an event, without a message id.
pub(crate) fn headers(event: &Event) -> HeaderMap {
    let mut headers = HeaderMap::new();
    // Taken by name, since a text would be checked and copied each time.
    let mut set = |name, value| headers.insert(HeaderName::from_static(name), value);
    for (name, value) in event.cloud_event_headers() {
        set(name, value.into_owned());
    }
    let stored = event.stored();
    set(HEADER_SIGNATURE, stored.signature.clone());
    set(HEADER_ALGORITHM, stored.proof.as_str().to_owned());
    set(HEADER_KEY, stored.key.name().to_string());
    if let Some(digest) = stored.key.digest() {
        set(HEADER_KEY_DIGEST, digest.to_string());
    }
    set(HEADER_ORIGIN, event.origin().as_str().to_owned());
    if let Some(trace) = stored.trace {
        set(HEADER_TRACE, trace.to_string());
    }
    if let Some(state) = &stored.trace_state {
        set(HEADER_TRACE_STATE, state.as_str().to_owned());
    }
    if let Some(root) = root(event).filter(|root| root.len() <= MAX_HEADER_VALUE) {
        set(HEADER_ROOT, root);
    }
    let fluent = event
        .fields()
        .fluent_event_id
        .as_deref()
        .map(encode_header_value);
    if let Some(fluent) = fluent.filter(|fluent| fluent.len() <= MAX_HEADER_VALUE) {
        set(HEADER_FLUENT_ID, fluent.into_owned());
    }
    if stored.refed {
        set(HEADER_REFED, "true".to_owned());
    }
    headers
}

/// Returns the headers of an event that is stored once under `id`.
pub(crate) fn headers_with_id(event: &Event, id: String) -> HeaderMap {
    let mut headers = headers(event);
    // The comparison of Fluent's log with what was received reads this of every event.
    headers.insert(
        HeaderName::from_static(HEADER_LOG_KEY),
        event.fluent_key().to_string(),
    );
    headers.insert(NATS_MESSAGE_ID, id);
    headers
}

fn root(event: &Event) -> Option<String> {
    let fields = event.fields();
    let reference = fields.root_entity_ref.as_deref()?;
    let kind = fields.root_entity_type.as_deref().unwrap_or_default();
    Some(encode_header_value(&format!("{kind}/{reference}")).into_owned())
}

/// Decodes the event of a stored message, if it still has the digest under which it was stored.
pub(crate) fn event(headers: &HeaderMap, body: Bytes) -> Result<Event, NotAnEvent> {
    let id: EventId = parsed(headers, HEADER_ID)?;
    let trace = text(headers, HEADER_TRACE).and_then(|trace| trace.parse().ok());
    let state = text(headers, HEADER_TRACE_STATE).filter(|_| trace.is_some());
    let stored = StoredEvent {
        body,
        proof: proof(headers).ok_or(NotAnEvent(HEADER_ALGORITHM))?,
        key: Arc::new(key(headers)?),
        signature: text(headers, HEADER_SIGNATURE)
            .unwrap_or_default()
            .to_owned(),
        received_at: parsed::<Timestamp>(headers, HEADER_TIME)?,
        trace,
        trace_state: state.and_then(|state| TraceState::read([state.as_bytes()])),
        refed: text(headers, HEADER_REFED).is_some(),
    };
    Event::restore(id, stored).map_err(|_| NotAnEvent("its body does not have its digest"))
}

/// Returns the key that the headers name. An invalid digest names no key of ours.
pub(crate) fn key(headers: &HeaderMap) -> Result<KeyId, NotAnEvent> {
    let name = parsed(headers, HEADER_KEY)?;
    Ok(match text(headers, HEADER_KEY_DIGEST) {
        Some(_) => KeyId::new(name, parsed(headers, HEADER_KEY_DIGEST)?),
        None => KeyId::any_named(name),
    })
}

pub(crate) fn proof(headers: &HeaderMap) -> Option<Proof> {
    Proof::from_name(text(headers, HEADER_ALGORITHM)?)
}

/// Returns a header's only value.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &'static str) -> Option<&'h str> {
    headers
        .get(HeaderName::from_static(name))
        .map(async_nats::HeaderValue::as_str)
}

/// Parses a header's only value.
pub(crate) fn parsed<T: FromStr>(headers: &HeaderMap, name: &'static str) -> Result<T, NotAnEvent> {
    text(headers, name)
        .and_then(|value| value.parse().ok())
        .ok_or(NotAnEvent(name))
}
