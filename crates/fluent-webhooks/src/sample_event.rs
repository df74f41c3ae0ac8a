//! Events that a person gives, for trying settings: they are not proven, and no queue gets them.

use std::sync::Arc;

use anyhow::bail;
use event_model::{
    Algorithm, Clock, Environment, Event, EventId, KeyId, KeyName, Proof, StoredEvent, SystemClock,
};

/// An event with this body, without a signature.
///
/// # Errors
/// If the body is not an event.
pub(crate) fn of_body(body: Vec<u8>, environment: Environment) -> anyhow::Result<Event> {
    let id = EventId::of(environment, &body);
    let stored = StoredEvent {
        body: body.into(),
        proof: Proof::Signed(Algorithm::Sha512),
        key: Arc::new(KeyId::any_named(KeyName::new("test", environment))),
        signature: String::new(),
        received_at: SystemClock.now(),
        trace: None,
        trace_state: None,
        refed: false,
    };
    match Event::restore(id, stored) {
        Ok(event) => Ok(event),
        Err(_) => bail!(
            "this is not an event: expected a JSON object with id, name, accountId and retailerId; sent as a webhook, it would be kept in quarantine"
        ),
    }
}
