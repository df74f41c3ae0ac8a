//! The event: its admission, its stored parts, and what can be read of it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::fields::Read;
use crate::{
    Accounts, Environment, EventId, Evidence, Fields, FluentKey, Inbound, KeyId, KeyName,
    Malformed, Origin, Proof, TraceParent, TraceState, Verified,
};

/// A genuine webhook of a listed account, or a record of Fluent's log, with an identity.
///
/// Invariant: its body was verified. So its fields are private, and there are two ways to make
/// one: [`Event::admit`] on arrival, and [`Event::restore`] from a store.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    id: EventId,
    environment: Environment,
    /// Shared, since an event is copied wherever it may have to be delivered again.
    fields: Arc<Fields>,
    stored: StoredEvent,
    /// See [`Event::into_test`].
    is_test: bool,
}

/// The part of an event that a queue stores; the rest is read from the body again.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// The exact signed bytes; for a reconciled event, the bytes written from Fluent's log.
    pub body: Bytes,
    /// The proof that the bytes are Fluent's.
    pub proof: Proof,
    /// The key that matched.
    pub key: Arc<KeyId>,
    /// The signature, or our seal, in standard base64; empty if there is none.
    pub signature: String,
    /// Arrival of the webhook, or the time at which the event was found to be missing.
    pub received_at: Timestamp,
    /// The trace that began with the request.
    pub trace: Option<TraceParent>,
    /// The `tracestate` of the request, for tracing systems; only together with `trace`.
    pub trace_state: Option<TraceState>,
    /// True if the queue had lost the event and a spool sent it again: it may come late, and
    /// after newer events of its entity.
    pub refed: bool,
}

impl StoredEvent {
    /// The trace and its state as one text, for a queue to store.
    pub fn trace_text(&self) -> Option<String> {
        let trace = self.trace?;
        Some(match &self.trace_state {
            Some(state) => format!("{trace} {}", state.as_str()),
            None => trace.to_string(),
        })
    }

    /// Reads a text of [`Self::trace_text`]. An invalid text is read as no trace.
    pub fn trace_of_text(text: &str) -> (Option<TraceParent>, Option<TraceState>) {
        let (trace, state) = text.split_once(' ').unwrap_or((text, ""));
        match trace.parse() {
            Ok(trace) => (Some(trace), TraceState::read([state.as_bytes()])),
            Err(_) => (None, None),
        }
    }
}

/// Shows id and size, never content: bodies stay out of logs.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({}, {} bytes)", self.id, self.stored.body.len())
    }
}

impl fmt::Debug for StoredEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stored({}, {} bytes)", self.key.name(), self.body.len())
    }
}

/// Reason why a verified webhook is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdmissionError {
    /// No account of this name is listed. The body is not stored anywhere.
    #[error("account is not listed")]
    UnknownAccount,
    /// The account is listed, but for another region's or environment's key.
    #[error("the key is not that of the account's region and environment")]
    WrongKey,
    /// The account is listed, but this retailer of it is not.
    #[error("retailer is not listed")]
    UnknownRetailer,
    /// The body is genuine, but not an event; to be quarantined for a person.
    #[error("genuine, but malformed")]
    Malformed(#[source] Malformed),
}

/// The error for a stored event whose bytes are no longer those it was stored with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored event {expected} does not match its own digest")]
pub struct RestoreError {
    /// The id under which it was stored.
    pub expected: EventId,
}

impl Event {
    /// Admits a verified webhook, or returns the reason against it together with the webhook.
    ///
    /// The account is checked before anything else in the body.
    #[expect(
        clippy::result_large_err,
        reason = "a refused webhook is handed back whole, once"
    )]
    pub fn admit(
        inbound: Verified<Inbound>,
        accounts: &Accounts,
        trace: Option<TraceParent>,
    ) -> Result<Self, (AdmissionError, Verified<Inbound>)> {
        let read = Read::body(&inbound.value().body);
        if let Err(refusal) = allowed(&read, accounts, inbound.evidence().key.name()) {
            return Err((refusal, inbound));
        }
        let (inbound, evidence) = inbound.into_parts();
        let Evidence {
            proof,
            key,
            signature,
        } = evidence;
        let Inbound {
            body,
            received_at,
            headers: _,
        } = inbound;
        let stored = StoredEvent {
            body,
            proof,
            key,
            signature,
            received_at,
            trace,
            trace_state: None,
            refed: false,
        };
        Ok(Self::assemble(read.fields, stored))
    }

    /// Restores an event that was admitted before, from the parts that a queue stored.
    ///
    /// Fails if the bytes do not have the id they were stored under.
    pub fn restore(expected: EventId, stored: StoredEvent) -> Result<Self, RestoreError> {
        let Read {
            fields, is_json, ..
        } = Read::body(&stored.body);
        let event = Self::assemble(fields, stored);
        // An older version overlooked a repeated key, or bytes that are no text. Such a body was
        // answered with 200, and stays an event.
        let is_readable = is_json && event.fields.lacking().is_none();
        if event.id != expected || !is_readable {
            return Err(RestoreError { expected });
        }
        Ok(event)
    }

    fn assemble(fields: Fields, stored: StoredEvent) -> Self {
        let environment = stored.key.environment();
        let id = EventId::of(environment, &stored.body);
        Self {
            id,
            environment,
            fields: Arc::new(fields),
            stored,
            is_test: false,
        }
    }

    /// Returns the event as a test of one destination, which no queue gets: its origin says so,
    /// and `salt` makes its id another, so that the destination takes no later event for it.
    #[must_use]
    pub fn into_test(mut self, salt: u64) -> Self {
        let salted = [&self.stored.body[..], &salt.to_be_bytes()].concat();
        self.id = EventId::of(self.environment, &salted);
        self.is_test = true;
        self
    }

    /// The event's id, which is also the idempotency key.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// The event's environment: that of the key that matched.
    pub fn environment(&self) -> Environment {
        self.environment
    }

    /// The fields that were read from the body.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The key by which Fluent knows the event.
    pub fn fluent_key(&self) -> FluentKey {
        let id = self.fields.fluent_event_id.as_deref().unwrap_or_default();
        FluentKey::of(self.environment, self.account(), id, self.name())
    }

    /// The origin of the event: a webhook, Fluent's log, or a test.
    pub fn origin(&self) -> Origin {
        if self.is_test {
            Origin::Test
        } else {
            self.stored.proof.origin()
        }
    }

    /// The event's name, by which it is routed.
    pub fn name(&self) -> &str {
        self.fields.name.as_deref().unwrap_or_default()
    }

    /// The account of the event.
    pub fn account(&self) -> &str {
        self.fields.account.as_deref().unwrap_or_default()
    }

    /// The retailer within the account.
    pub fn retailer(&self) -> &str {
        self.fields.retailer.as_deref().unwrap_or_default()
    }

    /// The exact signed bytes.
    pub fn body(&self) -> &Bytes {
        &self.stored.body
    }

    /// Arrival of the webhook.
    pub fn received_at(&self) -> Timestamp {
        self.stored.received_at
    }

    /// The trace that began with the request.
    pub fn trace(&self) -> Option<TraceParent> {
        self.stored.trace
    }

    /// The `tracestate` that belongs to the trace.
    pub fn trace_state(&self) -> Option<&TraceState> {
        self.stored.trace_state.as_ref()
    }

    /// Returns the event with the `tracestate` that came with its request's `traceparent`.
    /// Without a trace, nothing is set.
    #[must_use]
    pub fn with_trace_state(mut self, state: Option<TraceState>) -> Self {
        self.stored.trace_state = state.filter(|_| self.stored.trace.is_some());
        self
    }

    /// Whether a spool has sent the event for a second time.
    pub fn is_republished(&self) -> bool {
        self.stored.refed
    }

    /// Returns the event, marked as one that the queue had lost.
    #[must_use]
    pub fn republished(mut self) -> Self {
        self.stored.refed = true;
        self
    }

    /// The parts that a queue must store.
    pub fn stored(&self) -> &StoredEvent {
        &self.stored
    }
}

/// Decides by what is known of the sender first, and by what the body lacks second.
fn allowed(read: &Read, accounts: &Accounts, key: &KeyName) -> Result<(), AdmissionError> {
    for name in &read.accounts {
        let listed = accounts.named(name);
        if listed.is_empty() {
            return Err(AdmissionError::UnknownAccount);
        }
        let account = listed
            .iter()
            .find(|account| account.key == *key)
            .ok_or(AdmissionError::WrongKey)?;
        if let (Some(retailers), Some(retailer)) = (&account.retailers, &read.fields.retailer)
            && !retailers.contains(retailer)
        {
            return Err(AdmissionError::UnknownRetailer);
        }
    }
    read.malformed.map_or(Ok(()), |malformed| {
        Err(AdmissionError::Malformed(malformed))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{Account, Algorithm, Headers};

    /// An event with this body, signed by Sydney's sandbox key, for any account.
    pub(crate) fn event_of(body: &str) -> Event {
        let verified = verified(body, "sydney_sandbox");
        let account = |name: &String| Account {
            name: name.clone(),
            key: "sydney_sandbox".parse().unwrap(),
            retailers: None,
        };
        let accounts = Accounts::new(Read::body(body.as_bytes()).accounts.iter().map(account));
        Event::admit(verified, &accounts, None)
            .map_err(|(refusal, _)| refusal)
            .unwrap()
    }

    const BODY: &str =
        r#"{"id":"e-1","name":"OrderStatusChange","accountId":"ACME","retailerId":"34"}"#;

    fn accounts() -> Accounts {
        let account = |name: &str, key: &str, retailers: Option<&[&str]>| Account {
            name: name.to_owned(),
            key: key.parse().unwrap(),
            retailers: retailers.map(|r| r.iter().map(|r| (*r).to_owned()).collect()),
        };
        Accounts::new([
            account("ACME", "sydney_sandbox", Some(&["1", "34"])),
            account("ACME", "sydney_production", None),
            account("OTHER", "dublin_sandbox", None),
        ])
    }

    fn verified(body: &str, key: &str) -> Verified<Inbound> {
        let inbound = Inbound {
            body: Bytes::copy_from_slice(body.as_bytes()),
            headers: Headers::default(),
            received_at: Timestamp::UNIX_EPOCH,
        };
        let evidence = Evidence {
            proof: Proof::Signed(Algorithm::Sha512),
            key: Arc::new(key.parse().unwrap()),
            signature: String::new(),
        };
        // A test may assert what it wants to be believed.
        Verified::assert(inbound, evidence)
    }

    #[track_caller]
    fn check(body: &str, key: &str, expected: Result<(), AdmissionError>) {
        let admitted = Event::admit(verified(body, key), &accounts(), None);
        assert_eq!(admitted.map(drop).map_err(|(refusal, _)| refusal), expected);
    }

    #[test]
    fn an_account_is_bound_to_its_key() {
        check(BODY, "sydney_sandbox", Ok(()));
        check(BODY, "sydney_production", Ok(()));
        check(BODY, "dublin_sandbox", Err(AdmissionError::WrongKey));
    }

    #[test]
    fn strangers_are_refused_before_their_body_is_looked_at() {
        check(
            r#"{"accountId":"STRANGER"}"#,
            "sydney_sandbox",
            Err(AdmissionError::UnknownAccount),
        );
        check(
            r#"{"accountId":"STRANGER","broken"#,
            "sydney_sandbox",
            Err(AdmissionError::UnknownAccount),
        );
        let both = r#"{"accountId":"ACME","accountId":"STRANGER"}"#;
        check(both, "sydney_sandbox", Err(AdmissionError::UnknownAccount));
    }

    #[test]
    fn a_listed_account_with_a_malformed_body_is_kept() {
        let missing = AdmissionError::Malformed(Malformed::Missing("id"));
        check(
            r#"{"accountId":"ACME","name":"n"}"#,
            "sydney_sandbox",
            Err(missing),
        );
        check(
            r#"{"accountId":"ACME","name":"n"}"#,
            "dublin_sandbox",
            Err(AdmissionError::WrongKey),
        );
        check(
            r#"{"accountId":"ACME","retailerId":"99"}"#,
            "sydney_sandbox",
            Err(AdmissionError::UnknownRetailer),
        );
        check(
            "not json",
            "sydney_sandbox",
            Err(AdmissionError::Malformed(Malformed::NotJson)),
        );
    }

    #[test]
    fn retailers_can_be_listed() {
        let body = BODY.replace("34", "35");
        check(
            &body,
            "sydney_sandbox",
            Err(AdmissionError::UnknownRetailer),
        );
        check(&body, "sydney_production", Ok(()));
    }

    #[test]
    fn the_environment_is_part_of_the_identity() {
        let id = |key| {
            Event::admit(verified(BODY, key), &accounts(), None)
                .unwrap()
                .id()
        };
        assert_ne!(id("sydney_sandbox"), id("sydney_production"));
        // printf 'sandbox\0<body>' | sha256sum
        assert_eq!(
            EventId::of(Environment::Sandbox, b"{}").to_string(),
            "5fea79e0a10fbe87cc3100ddc9223442290956fca4189bdf26a0298656ac979b"
        );
    }

    #[test]
    fn two_bodies_of_one_fluent_id_are_two_events() {
        // Two webhook rules of a workflow may send the same event, each in its own form.
        let first = event_of(BODY);
        let second = event_of(&BODY.replace("34\"}", "34\",\"attributes\":{}}"));
        assert_eq!(first.fluent_key(), second.fluent_key());
        assert_ne!(first.id(), second.id());
    }

    #[test]
    fn restored_bytes_must_be_those_that_were_stored() {
        let event = Event::admit(verified(BODY, "sydney_sandbox"), &accounts(), None).unwrap();
        assert_eq!(
            Event::restore(event.id(), event.stored().clone()),
            Ok(event.clone())
        );
        let mut altered = event.stored().clone();
        altered.body = Bytes::from(BODY.replace("34", "35"));
        let damaged = RestoreError {
            expected: event.id(),
        };
        assert_eq!(Event::restore(event.id(), altered), Err(damaged));
    }

    #[test]
    fn what_an_older_version_admitted_stays_an_event() {
        let event = Event::admit(verified(BODY, "sydney_sandbox"), &accounts(), None).unwrap();
        let restored = |body: Vec<u8>| {
            let id = EventId::of(Environment::Sandbox, &body);
            Event::restore(
                id,
                StoredEvent {
                    body: body.into(),
                    ..event.stored().clone()
                },
            )
        };
        let with = |rest: &[u8]| [&BODY.as_bytes()[..BODY.len() - 1], rest].concat();
        assert_eq!(
            restored(with(b",\"x\":\"\xff\"}")).unwrap().name(),
            "OrderStatusChange"
        );
        assert!(restored(with(br#","attributes":{},"attributes":{}}"#)).is_ok());
        for broken in [with(b","), b"{}".to_vec(), b"not json".to_vec()] {
            assert!(restored(broken).is_err());
        }
    }
}
