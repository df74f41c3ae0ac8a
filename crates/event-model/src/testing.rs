//! Events for tests: made without a signature, and for nothing else.

use std::sync::Arc;

use crate::{
    Account, Accounts, Algorithm, Bytes, Event, Evidence, Headers, Inbound, KeyId, KeyName, Proof,
    Timestamp, TraceParent, TraceState, Verified,
};

/// Nanoseconds since 1970 at which every event of a test was received: in the year 2096, so that
/// no retention by age removes it while a test runs.
const RECEIVED_AT: i128 = 4_000_000_000_123_456_789;

/// An event called `name`, about the order `reference`, of the account `ACME`.
///
/// ```
/// let event = fluent_event_model::testing::event("OrderStatusChange", "HD_1");
/// assert_eq!(event.entity().as_deref(), Some("ORDER/HD_1"));
/// ```
///
/// # Panics
///
/// If the two do not stand as they are in a JSON text.
pub fn event(name: &str, reference: &str) -> Event {
    let body = format!(
        r#"{{"id":"{name}-{reference}","name":"{name}","accountId":"ACME","retailerId":"1","entityType":"ORDER","entityRef":"{reference}"}}"#
    );
    event_of(body)
}

/// The event of this body, as if Fluent had signed it. Its `accountId` must be `ACME`.
///
/// # Panics
///
/// If the body is no event of that account.
pub fn event_of(body: impl Into<Bytes>) -> Event {
    let received_at = Timestamp::from_nanosecond(RECEIVED_AT).expect("a time");
    event_of_at(body, received_at)
}

/// An event with this body, received at this time; see [`event_of`].
///
/// # Panics
/// If the body is no event of the account `ACME`.
pub fn event_of_at(body: impl Into<Bytes>, received_at: Timestamp) -> Event {
    let key: KeyName = "sydney_sandbox".parse().expect("a key's name");
    let accounts = Accounts::new([Account {
        name: "ACME".to_owned(),
        key: key.clone(),
        retailers: None,
    }]);
    let evidence = Evidence {
        proof: Proof::Signed(Algorithm::Sha512),
        key: Arc::new(KeyId::any_named(key)),
        signature: "c2lnbmF0dXJl".to_owned(),
    };
    let inbound = Inbound {
        body: body.into(),
        headers: Headers::default(),
        received_at,
    };
    // A test states what it wants to be believed.
    let verified = Verified::assert(inbound, evidence);
    let event = Event::admit(verified, &accounts, TraceParent::new(7, 9, true))
        .expect("an admissible event");
    event.with_trace_state(TraceState::read([
        &b"rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"[..],
    ]))
}
