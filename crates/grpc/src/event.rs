//! Events in messages: their fields for readers, and the exact body, from which we read the event
//! again.

use std::sync::Arc;

use event_model::{
    Bytes, Event, EventId, ExactJson, Fields, Proof, RestoreError, StoredEvent, Timestamp,
    TraceParent,
};

use crate::time::{timestamp, timestamp_of};
use proto::v1;

/// The reason why a message is not an event. Names fields, never values.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventDecodeError {
    /// A required field is missing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A field has a value that is not valid.
    #[error("`{0}` is not what the contract says")]
    Invalid(&'static str),
    /// The body does not match the id.
    #[error("the body does not have the id that it came with")]
    Damaged(#[from] RestoreError),
}

/// The message for an event. Fluent's signature is not in it.
pub fn event(event: &Event) -> v1::Event {
    v1::Event {
        body: event.body().clone(),
        ..without_body(event)
    }
}

/// The message for an event without its body.
pub fn without_body(event: &Event) -> v1::Event {
    let fields = event.fields();
    let stored = event.stored();
    v1::Event {
        id: event.id().to_string(),
        environment: event.environment().to_string(),
        account: event.account().to_owned(),
        retailer: event.retailer().to_owned(),
        name: event.name().to_owned(),
        fluent_event_id: fields.fluent_event_id.clone().unwrap_or_default(),
        entity: entity(fields),
        root_entity: root_entity(fields),
        body: Bytes::new(),
        key: stored.key.name().to_string(),
        algorithm: stored.proof.as_str().to_owned(),
        origin: event.origin().as_str().to_owned(),
        received_at: Some(timestamp(stored.received_at)),
        republished: stored.refed,
    }
}

fn entity(fields: &Fields) -> Option<v1::Entity> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let found = v1::Entity {
        r#type: text(&fields.entity_type),
        subtype: text(&fields.entity_subtype),
        r#ref: text(&fields.entity_ref),
        id: text(&fields.entity_id),
        status: text(&fields.entity_status),
    };
    (found != v1::Entity::default()).then_some(found)
}

fn root_entity(fields: &Fields) -> Option<v1::Entity> {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let found = v1::Entity {
        r#type: text(&fields.root_entity_type),
        r#ref: text(&fields.root_entity_ref),
        id: text(&fields.root_entity_id),
        ..v1::Entity::default()
    };
    (found != v1::Entity::default()).then_some(found)
}

/// The message for one attempt.
pub fn delivery(
    id: &str,
    route: &str,
    attempt: u32,
    idempotency_key: &str,
    started_at: Timestamp,
    timeout: std::time::Duration,
    trace: Option<TraceParent>,
) -> v1::Delivery {
    v1::Delivery {
        id: id.to_owned(),
        route: route.to_owned(),
        attempt,
        idempotency_key: idempotency_key.to_owned(),
        started_at: Some(timestamp(started_at)),
        timeout: Some(crate::duration(timeout)),
        traceparent: trace.map(|trace| trace.to_string()).unwrap_or_default(),
        tracestate: String::new(),
        enriched: Vec::new(),
        wants_answer: false,
    }
}

/// The bytes of an enrichment's answer in a message, empty without one.
pub fn enriched(json: Option<&ExactJson>) -> Vec<u8> {
    json.map(|json| json.as_str().as_bytes().to_vec())
        .unwrap_or_default()
}

/// The enrichment's answer in a message, if there is one. The inverse of [`enriched`].
pub fn enriched_of(delivery: &v1::Delivery) -> Result<Option<ExactJson>, EventDecodeError> {
    if delivery.enriched.is_empty() {
        return Ok(None);
    }
    let text = str::from_utf8(&delivery.enriched).ok();
    let json = text.and_then(|text| ExactJson::parse(text).ok());
    json.map(Some)
        .ok_or(EventDecodeError::Invalid("delivery.enriched"))
}

/// The event that `message` carries. Its fields are read from the body; those in the message are
/// for readers without a JSON parser.
///
/// The event is taken as verified: a peer that may call us is trusted as a queue is.
pub fn restore(message: v1::Event, trace: Option<TraceParent>) -> Result<Event, EventDecodeError> {
    let id: EventId = message
        .id
        .parse()
        .map_err(|_| EventDecodeError::Invalid("event.id"))?;
    let received_at = message
        .received_at
        .as_ref()
        .ok_or(EventDecodeError::Missing("event.received_at"))?;
    let stored = StoredEvent {
        body: message.body,
        proof: Proof::from_name(&message.algorithm)
            .ok_or(EventDecodeError::Invalid("event.algorithm"))?,
        key: Arc::new(
            message
                .key
                .parse()
                .map_err(|_| EventDecodeError::Invalid("event.key"))?,
        ),
        signature: String::new(),
        received_at: timestamp_of(received_at)
            .ok_or(EventDecodeError::Invalid("event.received_at"))?,
        trace,
        trace_state: None,
        refed: message.republished,
    };
    Ok(Event::restore(id, stored)?)
}
