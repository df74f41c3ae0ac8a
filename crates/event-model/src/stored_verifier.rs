//! The port by which a stored event is verified again.

use std::fmt;

use crate::{Event, EventId, FluentKey};

/// Verifies stored events again: a process that writes into the queue's streams past the gateways
/// must not be believed.
///
/// ```
/// use fluent_event_model::{Event, EventId, FluentKey, StoredVerdict, StoredVerifier};
///
/// /// Trusts the store, as a process may that alone can write to it.
/// #[derive(Debug)]
/// struct Trusting;
///
/// impl StoredVerifier for Trusting {
///     fn verify(&self, _: &Event) -> StoredVerdict {
///         StoredVerdict::Verified
///     }
///
///     fn has_reconciled(&self, _: FluentKey, _: EventId, _: &str) -> bool {
///         true
///     }
/// }
/// ```
pub trait StoredVerifier: fmt::Debug + Send + Sync {
    /// Verifies an event. Costs about as much as on arrival.
    fn verify(&self, event: &Event) -> StoredVerdict;

    /// Whether `seal` proves that a reconciler of ours found the event `id` for this key.
    fn has_reconciled(&self, key: FluentKey, id: EventId, seal: &str) -> bool;
}

const _: fn(&dyn StoredVerifier) = |_| {};

/// Result of verifying a stored event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredVerdict {
    /// The event is what was admitted.
    Verified,
    /// The named key is known, and did not sign the event: somebody put it there. It is never
    /// delivered.
    Forged(Forgery),
    /// The named key is not among ours, so nothing is known of the event: it waits for the key.
    KeyUnknown,
}

/// Evidence that a stored event is not genuine. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forgery {
    /// The event has nothing that could prove it.
    #[error("it has no signature")]
    Unsigned,
    /// The key did not make this signature over these bytes.
    #[error("its signature is not by the key that it names")]
    WrongSignature,
    /// The key is listed under another region or environment than the event says.
    #[error("its key is listed under another name than it says")]
    WrongName,
    /// The account is listed for other keys only.
    #[error("its account is not one of its key")]
    WrongAccount,
    /// The event is stored under another subject, id or route than its bytes have.
    #[error("it is stored under a subject that is not its own")]
    WrongSubject,
}
